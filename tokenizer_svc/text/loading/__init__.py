"""Loads the fast tokenizer that transformers' AutoTokenizer makes of a checkpoint folder, without transformers."""
