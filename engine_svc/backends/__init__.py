"""What turns a packed batch into numbers: the seam between the scheduler and a model library."""
