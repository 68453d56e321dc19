"""The backend that computes hidden states with TensorRT-LLM, which is imported only when a model is loaded."""
