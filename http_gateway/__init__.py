"""The HTTP gateway: OpenAI and BEI routes on one side, one InferenceService item per request on the other."""
