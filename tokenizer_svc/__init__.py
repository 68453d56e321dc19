"""The tokenizer pod: text in, answers out. Tokenizes, spreads sequences over engine pods, and gathers their results."""

from heddle.rpc.grpc_core import configure_core

configure_core()
