"""From a checkpoint folder to the fast tokenizer that transformers' AutoTokenizer makes of it, without transformers."""
