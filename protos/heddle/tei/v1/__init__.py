"""Messages and stubs generated from protos/tei/v1/tei.proto; never edited by hand."""
