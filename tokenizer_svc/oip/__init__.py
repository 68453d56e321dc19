"""The Open Inference Protocol v2, for callers of KServe and Triton. Requests are translated to heddle.v1.

`servicer` implements the RPCs, `requests` and `parameters` translate requests, `answers` translates answers, `arrays`
reads and writes tensors, and `metadata` describes the model.
"""
