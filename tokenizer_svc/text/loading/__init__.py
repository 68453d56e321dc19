"""Loads the fast tokenizer that transformers' AutoTokenizer makes of a checkpoint folder, without transformers.

`fast_tokenizer` does it in order: it reads `tokenizer_config`, reads tokenizer.json or builds a tokenizer from
`vocabulary` files or a `sentence_piece` model, and applies the settings: `normalization`, `added_tokens`,
`post_processor`.
"""
