"""The tasks: for each request of InferenceItem, the models that can answer it and the function that plans it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.rpc.errors import ErrorKind, HeddleError
from tokenizer_svc.tasks import cosine, embedding, prediction, reranking, token_prediction, tokens
from tokenizer_svc.tasks.plan import LocalPlan, Plan
from tokenizer_svc.tasks.served_model import ServedModel


@dataclass(frozen=True, slots=True)
class Task:
    description: str  # completes "the model cannot ..."
    is_supported_by: Callable[[Checkpoint], bool]
    plan: Callable[[Any, ServedModel], Plan | LocalPlan]  # raises HeddleError


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
    "embed_tokens": Task("make vectors of tokens", TOKEN_EMBEDDER, embedding.plan_tokens),
    "embed_sparse": Task("make sparse vectors of texts", makes_sparse_vectors, embedding.plan_sparse),
    "similarity": Task("compare texts", EMBEDDER, cosine.plan_similarity),
    "rerank": Task("rerank documents", RERANKER, reranking.plan),
    "predict": Task("classify whole texts", CLASSIFIER, prediction.plan),
    "predict_tokens": Task("label the tokens of texts", TOKEN_CLASSIFIER, token_prediction.plan),
    "tokenize": Task("tokenize", any_model, tokens.plan_tokenize),
    "decode": Task("decode", any_model, tokens.plan_decode),
}

RERANK_BY_COSINE_HINT = "; the tokenizer's setting rerank_by_cosine lets it rerank by cosine"


def plan_request(name: str, request: Any, served: ServedModel) -> Plan | LocalPlan:
    """Raises HeddleError for an invalid request; WRONG_TASK if another kind of model could answer it."""
    task = TASKS.get(name)
    if task is None:
        raise HeddleError(ErrorKind.UNIMPLEMENTED, f"{name} is not implemented by this version")
    served.check_model(request.model)
    if task.is_supported_by(served.checkpoint):
        return task.plan(request, served)
    if name == "rerank" and served.reranks_by_cosine:
        return cosine.plan_reranking(request, served)
    hint = RERANK_BY_COSINE_HINT if name == "rerank" and served.checkpoint.kind is ModelKind.EMBEDDER else ""
    raise wrong_task(task, served.checkpoint, hint)


def wrong_task(wanted: Task, checkpoint: Checkpoint, hint: str = "") -> HeddleError:
    kind = checkpoint.kind
    supported = [task for task in TASKS.values() if task.is_supported_by is not any_model]
    others = [task.description for task in supported if task.is_supported_by(checkpoint)]
    article = "an" if kind is ModelKind.EMBEDDER else "a"
    cannot = f"{checkpoint.name} is {article} {kind.replace('_', ' ')}: it cannot {wanted.description}"
    return HeddleError(ErrorKind.WRONG_TASK, f"{cannot}, but it can {join_words(others)}{hint}")


def join_words(things: list[str]) -> str:
    """Joins words as in "one, two and three"."""
    *others, last = things
    return f"{', '.join(others)} and {last}" if others else last
