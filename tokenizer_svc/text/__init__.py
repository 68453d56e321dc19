"""Pure tokenization: text in, token ids out. Knows no gRPC and no event loop; the encoder and the tasks call it."""
