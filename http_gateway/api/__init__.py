"""The HTTP APIs. routes.py lists every route; the other files hold the bodies, answers and handlers of some routes, or
what several of them share.

    openai_embeddings.py    /v1/embeddings, and Azure's path for it
    tei_*.py                TEI and BEI: /embed, /predict, /predict_tokens, /tokenize and their relatives
    rerank.py               /rerank of TEI, /v1/rerank and /v2/rerank of Cohere and Jina
    cohere.py  ollama.py    the rest of Cohere's and Ollama's
    vllm*.py                /classify, /pooling, /score
    model_task.py           /, /invocations, /vertex: the task of the model
    path_aliases.py         the paths of Baseten's edge and of KServe, which stand for other routes
    models.py               the served models: /v1/models, /models, /info
    operations.py           probes, metrics, documentation (openapi.py)
"""
