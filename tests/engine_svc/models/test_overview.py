"""The table of models lists what the parity cases test, and they test every architecture."""

from engine_svc.models.architectures.registry import ARCHITECTURES, Architecture
from heddle.checkpoint import ModelKind
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.overview import ARCHITECTURES as ROWS
from tests.engine_svc.models.overview import PRINTED, table
from tests.engine_svc.models.published_checkpoints import PUBLISHED


def test_the_table_is_up_to_date() -> None:
    assert PRINTED.read_text() == table(), "run make models"


def test_every_case_has_a_row_and_every_row_a_case() -> None:
    assert {case.architecture for case in CASES} == set(ROWS)


def test_every_published_checkpoint_is_named_in_a_row() -> None:
    assert {published.row for published in PUBLISHED} <= set(ROWS)


def test_every_architecture_and_each_of_its_heads_has_a_case() -> None:
    """A head that several architectures share is tested with one of them."""
    tested = {(case.architecture, case.kind) for case in CASES}
    assert ARCHITECTURES.keys() <= {name for name, kind in tested if kind is ModelKind.EMBEDDER}
    heads = {(kind, load) for name, kind in tested if name in ARCHITECTURES for load in [find_head(name, kind)] if load}
    for architecture in ARCHITECTURES.values():
        assert set(architecture.heads.items()) - heads <= list_classifiers(architecture, heads)


def find_head(name: str, kind: ModelKind) -> object:
    return ARCHITECTURES[name].heads.get(kind)


def list_classifiers(architecture: Architecture, heads: set[tuple[ModelKind, object]]) -> set[tuple[ModelKind, object]]:
    """Rerankers and classifiers have one head: either will do."""
    both = (ModelKind.RERANKER, ModelKind.CLASSIFIER)
    return {(kind, load) for kind, load in architecture.heads.items() if any((other, load) in heads for other in both)}
