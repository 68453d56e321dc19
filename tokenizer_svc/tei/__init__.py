"""The services of tei.v1: callers of Text Embeddings Inference are answered by translating to heddle.v1 and back.

What its server does was read from huggingface/text-embeddings-inference, router/src/grpc/server.rs at 0d124dc.
"""
