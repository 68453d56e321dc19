"""Every request of the contract, by its name in InferenceItem: the models that can answer it, and how it is planned."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.rpc.errors import ErrorKind, HeddleError
from tokenizer_svc.tasks import (
    cosine_reranking,
    embedding,
    prediction,
    reranking,
    similarity,
    sparse_embedding,
    token_embedding,
    token_prediction,
    tokens_of_texts,
)
from tokenizer_svc.tasks.errand import Errand
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.tasks.terms import Terms

EVERY_KIND = frozenset(ModelKind)


@dataclass(frozen=True, slots=True)
class Task:
    does: str  # as in "the model cannot …"
    kinds: frozenset[ModelKind]  # of the models that can
    plan: Callable[[Any, Terms], Plan | Errand]  # of the request; raises HeddleError


EMBEDDERS = frozenset({ModelKind.EMBEDDER})
TOKEN_EMBEDDERS = frozenset({ModelKind.EMBEDDER, ModelKind.MULTI_VECTOR_EMBEDDER})
CLASSIFIERS = frozenset({ModelKind.CLASSIFIER, ModelKind.RERANKER})

TASKS = {
    "embed": Task("make dense vectors of texts", EMBEDDERS, embedding.plan),
    "embed_tokens": Task("make vectors of tokens", TOKEN_EMBEDDERS, token_embedding.plan),
    "embed_sparse": Task("make sparse vectors of texts", frozenset({ModelKind.SPARSE_EMBEDDER}), sparse_embedding.plan),
    "similarity": Task("compare texts", EMBEDDERS, similarity.plan),
    "rerank": Task("rerank documents", frozenset({ModelKind.RERANKER}), reranking.plan),
    "predict": Task("classify whole texts", CLASSIFIERS, prediction.plan),
    "predict_tokens": Task("label the tokens of texts", frozenset({ModelKind.TOKEN_CLASSIFIER}), token_prediction.plan),
    "tokenize": Task("tokenize", EVERY_KIND, tokens_of_texts.tokenize),
    "decode": Task("decode", EVERY_KIND, tokens_of_texts.decode),
}


def planned(name: str, request: Any, terms: Terms) -> Plan | Errand:
    """Raises HeddleError for what cannot be served, WRONG_TASK where another kind of model could."""
    task = TASKS.get(name)
    if task is None:
        raise HeddleError(ErrorKind.UNIMPLEMENTED, f"{name} is not served by this version")
    terms.check_model(request.model)
    if terms.checkpoint.kind in task.kinds:
        return task.plan(request, terms)
    if name == "rerank" and terms.checkpoint.kind in EMBEDDERS and terms.settings.rerank_by_cosine:
        return cosine_reranking.plan(request, terms)
    raise wrong_task(task, terms.checkpoint)


def wrong_task(wanted: Task, checkpoint: Checkpoint) -> HeddleError:
    kind = checkpoint.kind
    others = [task.does for task in TASKS.values() if kind in task.kinds and task.kinds is not EVERY_KIND]
    article = "an" if kind is ModelKind.EMBEDDER else "a"
    message = (
        f"{checkpoint.name} is {article} {kind.replace('_', ' ')}: it cannot {wanted.does}, but it can {listed(others)}"
    )
    return HeddleError(ErrorKind.WRONG_TASK, message)


def listed(things: list[str]) -> str:
    """As a sentence lists them: one, two and three."""
    *others, last = things
    return f"{', '.join(others)} and {last}" if others else last
