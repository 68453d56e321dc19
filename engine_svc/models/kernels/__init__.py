"""Triton kernels for what PyTorch runs as several operations in a forward pass. Each has a version in PyTorch's own
operations, for CPUs and for machines without Triton.

The kernels are written by hand, and the model is not given to `torch.compile`, for three reasons. A kernel here
compiles in under a second, once for each width of a model; a compiled transformer takes a minute, and compiles again
for new kinds of batches. A kernel computes a row in the same order of operations in any batch; a compiler may choose
another order for another number of rows. And the model stays plain Python that can be read and stepped through.

The rest of the engine imports these files only inside functions, after `launch.runs_kernels`.
"""
