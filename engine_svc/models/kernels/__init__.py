"""Triton kernels for what PyTorch runs as several operations in a forward pass, each with its plain version.

They are written by hand, and the model is not given to `torch.compile`, for three reasons. A kernel here compiles in
under a second, once for each width of a model, where a compiled transformer takes a minute and compiles again for new
kinds of batches. A kernel computes a row in the same order of operations in any batch, where a compiler may choose
another order for another number of rows. And the model stays plain Python, which can be read and stepped through.

Nothing here is imported at module level by the rest of the engine, because Triton is not installed everywhere:
`available.py` says where kernels run, `table.py` lists them.
"""
