"""Heddle's contract and the package that other services install: generated messages, client, and RPC runtime."""
