"""The served model as the tasks see it: checkpoint, tokenizer, and the limits and defaults of this pod.

The servicer makes one. Each task uses it to plan a request, or to refuse it before an engine sees it.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2, tensor_pb2
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.text.inputs import Options
from tokenizer_svc.text.rerank_prompts import RerankPrompt
from tokenizer_svc.text.tokenizer import Tokenizer
from tokenizer_svc.text.truncation import Truncation

TRUNCATIONS = frozenset(inference_pb2.Truncation.values())
TRUNCATION_SIDES = frozenset(inference_pb2.TruncationSide.values())
SIDES = {side.value: side for side in (Truncation.RIGHT, Truncation.LEFT)}
DATA_TYPES = frozenset(tensor_pb2.DataType.values())


class TruncatableRequest(Protocol):
    """A request with inputs that may be truncated."""

    @property
    def truncation(self) -> inference_pb2.Truncation: ...
    @property
    def truncation_side(self) -> inference_pb2.TruncationSide: ...
    @property
    def input_tokens_max(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ServedModel:
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    settings: TokenizerSettings
    rerank_prompt: RerankPrompt | None  # None: query and document are a pair for the tokenizer

    def read_options(self, request: TruncatableRequest, prompt_name: str = "", task: str = "") -> Options:
        """Uses the prompt that the request names, else its task's, else the default. Raises INVALID_INPUT for a prompt
        or task that the model does not have."""
        tasks = self.checkpoint.tasks
        if task and task not in tasks:
            message = f"{self.checkpoint.name} has no task {task!r}; it has: {', '.join(tasks) or 'none'}"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="task")
        if not prompt_name and task in self.tokenizer.prompts:
            prompt_name = task
        options = self.tokenizer.options(self.read_truncation(request), prompt_name)
        if task or request.input_tokens_max:
            return replace(options, task=task, tokens_max=request.input_tokens_max)
        return options

    def read_truncation(self, request: TruncatableRequest) -> Truncation:
        """Raises INVALID_INPUT for an unknown number."""
        wanted, side = request.truncation, request.truncation_side
        if wanted not in TRUNCATIONS:
            raise HeddleError(ErrorKind.INVALID_INPUT, f"there is no truncation {wanted}", field="truncation")
        if side not in TRUNCATION_SIDES:
            raise HeddleError(ErrorKind.INVALID_INPUT, f"there is no truncation side {side}", field="truncation_side")
        if wanted == inference_pb2.TRUNCATION_REFUSE or (self.refuses_long_inputs and not wanted):
            return Truncation.REFUSE
        if not side:
            return SIDES.get(self.settings.truncation_side, self.tokenizer.truncation_side)
        return Truncation.LEFT if side == inference_pb2.TRUNCATION_SIDE_LEFT else Truncation.RIGHT

    @property
    def reranks_by_cosine(self) -> bool:
        return self.checkpoint.kind is ModelKind.EMBEDDER and self.settings.rerank_by_cosine

    @property
    def refuses_long_inputs(self) -> bool:
        """The default for requests that do not choose."""
        return not self.settings.truncate

    def check_count(self, count: int, field: str = "inputs") -> None:
        """Raises EMPTY_INPUT for none and TOO_LARGE for too many. The message does not name the field, because HTTP
        callers know it by another name."""
        limit = self.settings.request_inputs_max
        if not count:
            raise HeddleError(ErrorKind.EMPTY_INPUT, "a request needs at least one input", field=field)
        if count > limit:
            message = f"the request has {count} inputs, the limit is {limit}"
            raise HeddleError(ErrorKind.TOO_LARGE, message, field=field)

    def check_model(self, name: str) -> None:
        """Raises MODEL_NOT_FOUND unless `name` is this model's or empty."""
        if name not in ("", self.checkpoint.name):
            message = f"there is no model {name!r} here, only {self.checkpoint.name!r}"
            raise HeddleError(ErrorKind.MODEL_NOT_FOUND, message, field="model")


def parse_data_type(wanted: tensor_pb2.DataType) -> tensor_pb2.DataType:
    """Raises INVALID_INPUT for an unknown number."""
    if wanted not in DATA_TYPES:
        raise HeddleError(ErrorKind.INVALID_INPUT, f"there is no data type {wanted}", field="data_type")
    return wanted or tensor_pb2.DATA_TYPE_FLOAT32
