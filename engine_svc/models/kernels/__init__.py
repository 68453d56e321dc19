"""Triton kernels for what PyTorch runs as several operations in a forward pass, each with its plain version."""
