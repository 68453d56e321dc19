"""The table of models says what is tested, and what is there is tested."""

from engine_svc.models.architectures.registry import ARCHITECTURES, Architecture
from heddle.checkpoint import ModelKind
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.overview import ARCHITECTURES as ROWS
from tests.engine_svc.models.overview import PRINTED, table
from tests.engine_svc.models.published_checkpoints import PUBLISHED


def test_table_is_the_one_that_the_cases_make() -> None:
    assert PRINTED.read_text() == table(), "run make models"


def test_every_case_has_a_row_and_every_row_a_case() -> None:
    assert {case.architecture for case in CASES} == set(ROWS)


def test_every_published_checkpoint_is_named_in_a_row() -> None:
    assert {published.row for published in PUBLISHED} <= set(ROWS)


def test_every_architecture_and_each_of_its_heads_has_a_case() -> None:
    """A head that several architectures share is tested with one of them."""
    tested = {(case.architecture, case.kind) for case in CASES}
    assert ARCHITECTURES.keys() <= {name for name, kind in tested if kind is ModelKind.EMBEDDER}
    heads = {(kind, load) for name, kind in tested if name in ARCHITECTURES for load in [head_of(name, kind)] if load}
    for architecture in ARCHITECTURES.values():
        assert set(architecture.heads.items()) - heads <= classifiers_of(architecture, heads)


def head_of(name: str, kind: ModelKind) -> object:
    return ARCHITECTURES[name].heads.get(kind)


def classifiers_of(architecture: Architecture, heads: set[tuple[ModelKind, object]]) -> set[tuple[ModelKind, object]]:
    """Rerankers and classifiers have one head: either will do."""
    both = (ModelKind.RERANKER, ModelKind.CLASSIFIER)
    return {(kind, load) for kind, load in architecture.heads.items() if any((other, load) in heads for other in both)}
