"""Reads a Truss `config.yaml`, as Baseten deploys it, and translates it into Heddle's own settings.

    schema.py        the fields, their types, ranges and defaults
    loading.py       the file -> a checked config, or a line for each mistake
    rules.py         which base model, quantization, card and source go together
    credentials.py   the secret of a source -> variables of the library that reads it
    translation.py   a config -> variables of `heddle serve` and its services

Imports pydantic and PyYAML. `heddle.cli` imports this package only for a command that reads such a file;
`heddle/cli/config_check.py` says what would run.
"""
