"""The tokenizer pod: text in, answers out. Tokenizes, spreads sequences over engine pods, and gathers their results."""
