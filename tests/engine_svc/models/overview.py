"""Makes the table that `heddle models` prints, from the parity cases: they compare each architecture with its reference
implementation.

python -m tests.engine_svc.models.overview            # writes the table
python -m tests.engine_svc.models.overview --check    # fails if the table is stale
"""

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from heddle.checkpoint import ModelKind
from heddle.checkpoint.sentence_modules import Pooling
from tests.engine_svc.models.cases import POOLED, Case
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.published_checkpoints import PUBLISHED

ROOT = Path(__file__).parents[3]
PRINTED = ROOT / "protos" / "heddle" / "cli" / "models.md"

TASKS = {
    "embed": (ModelKind.EMBEDDER,),
    "sparse": (ModelKind.SPARSE_EMBEDDER,),
    "rerank, classify": (ModelKind.RERANKER, ModelKind.CLASSIFIER),
    "entities": (ModelKind.TOKEN_CLASSIFIER,),
}

# In the order of the table, named by config.json's model_type. Two differ: jina-bert's config says `bert`, and that of
# jina_embeddings_v3 with Jina's own code `xlm-roberta`.
ARCHITECTURES = (
    *("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet", "electra", "albert", "deberta-v2"),
    *("modernbert", "jina-bert", "jina_embeddings_v3", "nomic_bert", "new", "gte"),
    *("llama", "llama_bidirec", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
)

FOOTNOTES = (
    "The named checkpoints are compared with their reference implementation by their published configuration, made "
    "small. A number says how many small checkpoints of a task, with random weights, are compared with theirs. The "
    "last column says by which poolings the vectors of embedders are compared; all means "
    f"{', '.join(Pooling)}. An embedder pools as its checkpoint says: by one of these or by several side by side, with "
    "or without Dense, LayerNorm and Normalize modules after it. ColBERT checkpoints return a vector for each token. "
    "Each of these is compared with sentence-transformers, whatever the architecture."
)


def table() -> str:
    rows = [["architecture", "checkpoints", *TASKS, "pooling"], *(row(name) for name in ARCHITECTURES)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(rows[0]))]
    head, *body = [line(cells, widths) for cells in rows]
    rule = line(["-" * width for width in widths], widths)
    return "\n".join((head, rule, *body, "", textwrap.fill(FOOTNOTES, 120))) + "\n"


def row(architecture: str) -> list[str]:
    cases = [case for case in CASES if case.architecture == architecture]
    counts = [tested(cases, kinds) for kinds in TASKS.values()]
    named = ", ".join(published.shown for published in PUBLISHED if published.row == architecture)
    return [architecture, named, *counts, list_poolings(cases)]


def tested(cases: Sequence[Case], kinds: Sequence[ModelKind]) -> str:
    return str(sum(case.kind in kinds for case in cases) or "")


def list_poolings(cases: Sequence[Case]) -> str:
    """The poolings that test_parity.py compares for every embedder."""
    if not any(case.kind is ModelKind.EMBEDDER for case in cases):
        return ""
    return "all" if POOLED.keys() == set(Pooling) else ", ".join(POOLED)


def line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"


def main() -> None:
    text = table()
    if "--check" in sys.argv:
        sys.exit(0 if PRINTED.read_text() == text else f"stale: {PRINTED}; run make models")
    PRINTED.write_text(text)


if __name__ == "__main__":
    main()
