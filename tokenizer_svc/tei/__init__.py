"""The services of tei.v1: callers of Text Embeddings Inference (TEI) are answered by translating to heddle.v1 and back.

`services` lists the RPCs, `calls` runs them, `translation`, `rerank` and `tokenize` answer one request each. What TEI's
server does was read from huggingface/text-embeddings-inference, router/src/grpc/server.rs at 0d124dc.
"""
