"""What follows the transformer: a head for each kind of model, from packed hidden states to the outputs of a batch."""
