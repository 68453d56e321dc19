"""What people bring: checkpoints of each architecture that the parity cases stand for, in the order of the README.

An architecture is called by the model_type of its config; `jina-bert` says that it is a `bert` there, and
`jina_embeddings_v3` with Jina's own code that it is an `xlm-roberta`.
"""

CHECKPOINTS = {
    "bert": "all-MiniLM, bge (en, zh), e5 (en), gte, mxbai-embed, bert-base-NER, splade, ms-marco-MiniLM",
    "roberta": "roberta-base-go_emotions, stsb-roberta, all-roberta-large",
    "xlm-roberta": "bge-m3, bge-reranker-v2-m3, multilingual-e5, xlm-roberta-base-language-detection",
    "camembert": "sentence-camembert",
    "distilbert": "msmarco-distilbert, opensearch-neural-sparse, distilbert-sst-2",
    "mpnet": "all-mpnet-base-v2, multi-qa-mpnet",
    "electra": "ms-marco-electra-base",
    "albert": "paraphrase-albert-small-v2",
    "deberta-v2": "mxbai-rerank-v1, deberta-v3 for NLI and NER",
    "modernbert": "gte-modernbert-base, its reranker, modernbert-embed-base, mmBERT",
    "jina-bert": "jina-embeddings-v2 (en, de, zh, es, code), jina-reranker-v1",
    "jina_embeddings_v3": "jina-embeddings-v3, jina-reranker-v2",
    "nomic_bert": "nomic-embed-text-v1.5, v2-moe, CodeRankEmbed",
    "new": "gte-large-en-v1.5, gte-multilingual-base and its reranker",
    "gte": "snowflake-arctic-embed-m-v2.0",
    "llama": "reward models (Skywork), RepLLaMA",
    "llama_bidirec": "llama-embed-nemotron-8b, llama-nemotron-embed and -rerank",
    "mistral": "e5-mistral-7b-instruct, SFR-Embedding-Mistral, Linq-Embed-Mistral",
    "qwen2": "gte-Qwen2, stella_en_1.5B, mxbai-rerank-v2",
    "qwen3": "Qwen3-Embedding, Qwen3-Reranker, also as a classifier (seq-cls)",
    "gemma": "bge-reranker-gemma",
    "gemma2": "bge-multilingual-gemma2, Skywork rewards",
    "gemma3_text": "embeddinggemma-300m",
}
