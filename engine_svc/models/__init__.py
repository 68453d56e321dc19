"""Transformers over packed sequences, without padding, and the loading of their weights."""
