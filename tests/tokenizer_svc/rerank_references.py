"""The ids of rerank prompts, by the code of the models' authors: those before, of and after query and document."""

from collections.abc import Callable

Ids = list[int]
Encode = Callable[[str], Ids]  # adds no special tokens


def qwen3(encode: Encode, query: str, document: str, instruction: str) -> tuple[Ids, Ids, Ids]:
    """`process_inputs` of the card of Qwen3-Reranker."""
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    pair = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    return encode(prefix), encode(pair), encode("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")


def mxbai(encode: Encode, query: str, document: str, instruction: str) -> tuple[Ids, Ids, Ids]:
    """`prepare_inputs` of the package mxbai-rerank."""
    prefix = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    )
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    )
    instruction = f"instruction: {instruction}\n" if instruction else ""
    pair = encode(f"{instruction}query: {query}") + encode("\n") + encode(f"document: {document}")
    return encode(prefix), pair, encode("\n") + encode(task) + encode("<|im_end|>\n<|im_start|>assistant\n")


def bge_gemma(encode: Encode, query: str, document: str, instruction: str) -> tuple[Ids, Ids, Ids]:
    """`get_inputs` of the card of bge-reranker-v2-gemma, for a tokenizer whose first token has the id 0."""
    pair = encode(f"A: {query}") + encode("\n") + encode(f"B: {document}")
    return [0], pair, encode("\n") + encode(instruction)


REFERENCES = {"qwen3-reranker": qwen3, "mxbai-rerank-v2": mxbai, "bge-reranker-gemma": bge_gemma}
