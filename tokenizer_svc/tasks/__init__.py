"""What requests come down to: each task plans its messages as sequences, and a gathering sees a plan through."""
