"""The engine pod: token ids in, vectors out. Runs a model in continuous, token-budgeted batches; never sees text."""
