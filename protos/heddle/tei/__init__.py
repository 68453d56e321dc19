"""The contract of Text Embeddings Inference, which tokenizer pods answer beside Heddle's own."""
