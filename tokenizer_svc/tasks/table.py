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
from tokenizer_svc.tasks.local_request import LocalPlan
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.tasks.terms import Terms


@dataclass(frozen=True, slots=True)
class Task:
    does: str  # as in "the model cannot …"
    can: Callable[[Checkpoint], bool]  # whether a model can do it
    plan: Callable[[Any, Terms], Plan | LocalPlan]  # of the request; raises HeddleError


def any_model(checkpoint: Checkpoint) -> bool:
    return True


def is_one_of(*kinds: ModelKind) -> Callable[[Checkpoint], bool]:
    return lambda checkpoint: checkpoint.kind in kinds


def makes_sparse_vectors(checkpoint: Checkpoint) -> bool:
    return checkpoint.kind is ModelKind.SPARSE_EMBEDDER or checkpoint.m3 is not None


EMBEDDER = is_one_of(ModelKind.EMBEDDER)
TOKEN_EMBEDDER = is_one_of(ModelKind.EMBEDDER, ModelKind.MULTI_VECTOR_EMBEDDER)
RERANKER = is_one_of(ModelKind.RERANKER)
CLASSIFIER = is_one_of(ModelKind.CLASSIFIER, ModelKind.RERANKER)
TOKEN_CLASSIFIER = is_one_of(ModelKind.TOKEN_CLASSIFIER)

TASKS = {
    "embed": Task("make dense vectors of texts", EMBEDDER, embedding.plan),
    "embed_tokens": Task("make vectors of tokens", TOKEN_EMBEDDER, token_embedding.plan),
    "embed_sparse": Task("make sparse vectors of texts", makes_sparse_vectors, sparse_embedding.plan),
    "similarity": Task("compare texts", EMBEDDER, similarity.plan),
    "rerank": Task("rerank documents", RERANKER, reranking.plan),
    "predict": Task("classify whole texts", CLASSIFIER, prediction.plan),
    "predict_tokens": Task("label the tokens of texts", TOKEN_CLASSIFIER, token_prediction.plan),
    "tokenize": Task("tokenize", any_model, tokens_of_texts.tokenize),
    "decode": Task("decode", any_model, tokens_of_texts.decode),
}

RERANK_BY_COSINE_HINT = "; the tokenizer's setting rerank_by_cosine lets it rerank by cosine"


def planned(name: str, request: Any, terms: Terms) -> Plan | LocalPlan:
    """Raises HeddleError for what cannot be served, WRONG_TASK where another kind of model could."""
    task = TASKS.get(name)
    if task is None:
        raise HeddleError(ErrorKind.UNIMPLEMENTED, f"{name} is not served by this version")
    terms.check_model(request.model)
    if task.can(terms.checkpoint):
        return task.plan(request, terms)
    if name == "rerank" and terms.reranks_by_cosine:
        return cosine_reranking.plan(request, terms)
    hint = RERANK_BY_COSINE_HINT if name == "rerank" and terms.checkpoint.kind is ModelKind.EMBEDDER else ""
    raise wrong_task(task, terms.checkpoint, hint)


def wrong_task(wanted: Task, checkpoint: Checkpoint, hint: str = "") -> HeddleError:
    kind = checkpoint.kind
    others = [task.does for task in TASKS.values() if task.can is not any_model and task.can(checkpoint)]
    article = "an" if kind is ModelKind.EMBEDDER else "a"
    message = (
        f"{checkpoint.name} is {article} {kind.replace('_', ' ')}: it cannot {wanted.does}, but it can {listed(others)}"
    )
    return HeddleError(ErrorKind.WRONG_TASK, message + hint)


def listed(things: list[str]) -> str:
    """As a sentence lists them: one, two and three."""
    *others, last = things
    return f"{', '.join(others)} and {last}" if others else last
