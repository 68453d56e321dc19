"""What follows an encoder: one head per kind of model, from packed hidden states to the answers of a batch."""
