"""The backend that has TensorRT-LLM compute the hidden states. Nothing here imports it before a model is loaded."""
