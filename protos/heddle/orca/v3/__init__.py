"""Messages generated from protos/xds/data/orca/v3/orca_load_report.proto; never edited by hand."""
