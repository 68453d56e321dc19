"""Pure tokenization: text in, token ids out. Knows no gRPC and no event loop.

In the order in which a request meets the files:

1. `inputs`: what a caller can send, with which options, and how large it is.
2. `tokenizer`: `Tokenizer.encode` passes each input on by its kind, to `short_texts` (almost all of them),
   `long_texts` or `prompted_pairs`. These call the tokenizers library through `batch_encoding`.
3. `fitting`: truncates or refuses inputs that are too long; `truncation` decides which tokens remain.
4. `sequences`: the results, as columns.

`entities` labels the tokens of a text afterwards, `rerank_prompts` has the prompts of rerankers, and `loading` reads
the tokenizer of a checkpoint.
"""
