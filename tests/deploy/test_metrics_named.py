"""The metrics that documents, manifests and routers name exist, and deploy/metrics.md lists them all."""

import re

from tests.deploy.manifests import DEPLOY
from tests.metrics import list_sample_names, write_table

NAME = re.compile(r"\b(?:heddle_(?:build|engine|gateway|process|rpc|tokenizer)|te)_[a-z_]+\b(?![*:])")


def test_the_document_lists_all_metrics() -> None:
    assert write_table() in (DEPLOY / "metrics.md").read_text(), "run `python -m tests.metrics` for the table"


def test_every_metric_that_a_file_names_exists() -> None:
    known = list_sample_names() | {re.sub("_(count|sum|bucket)$", "", name) for name in list_sample_names()}
    known |= {"te_request_", "te_embed_", "te_predict_", "te_batch_next_"}  # as prefixes, in metrics.md
    for path in DEPLOY.rglob("*"):
        if path.suffix in (".md", ".yaml"):
            named = set(NAME.findall(path.read_text()))
            assert named <= known, f"{path}: {', '.join(sorted(named - known))}"
