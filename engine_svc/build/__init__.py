"""Converts, quantizes and writes checkpoints. `heddle build` calls this."""
