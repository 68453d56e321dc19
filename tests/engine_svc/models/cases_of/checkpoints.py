"""What people bring: checkpoints of each architecture that the parity cases stand for, in the order of the README."""

CHECKPOINTS = {
    "bert": "all-MiniLM, bge (en, zh), e5, gte, mxbai, bert-base-NER, splade",
}
