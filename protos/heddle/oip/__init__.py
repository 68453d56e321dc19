"""The contract of the Open Inference Protocol, which tokenizer pods answer beside Heddle's own."""
