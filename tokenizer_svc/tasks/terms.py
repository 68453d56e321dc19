"""The terms on which this pod takes requests: the model they are for, its limits, and what holds where a request does
not say. The edge makes them once, each task plans by them, and refuses by them what no engine should see."""

from dataclasses import dataclass

from heddle.checkpoint import Checkpoint
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2, tensor_pb2
from tokenizer_svc.rerank_prompts import RerankPrompt
from tokenizer_svc.sequence import Options
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.tokenization import Tokenizer
from tokenizer_svc.truncation import Truncation

TRUNCATIONS = frozenset(inference_pb2.Truncation.values())
DATA_TYPES = frozenset(tensor_pb2.DataType.values())


@dataclass(frozen=True, slots=True)
class Terms:
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    settings: TokenizerSettings
    rerank_prompt: RerankPrompt | None  # None joins query and document as the tokenizer joins a pair

    def options(self, truncation: int, prompt_name: str = "") -> Options:
        return self.tokenizer.options(self.truncation(truncation), prompt_name)

    def truncation(self, wanted: int) -> Truncation:
        """Raises INVALID_INPUT for a number that the contract does not know."""
        if wanted not in TRUNCATIONS:
            raise HeddleError(ErrorKind.INVALID_INPUT, f"there is no truncation {wanted}", field="truncation")
        return Truncation(wanted) if wanted else Truncation[self.settings.truncation.upper()]

    def check_count(self, count: int, field: str = "inputs") -> None:
        """Raises EMPTY_INPUT for none and TOO_LARGE for too many."""
        limit = self.settings.request_inputs_max
        if not count:
            message = f"{field} is empty: a request needs at least one"
            raise HeddleError(ErrorKind.EMPTY_INPUT, message, field=field)
        if count > limit:
            message = f"the request has {count} {field}, the limit is {limit}"
            raise HeddleError(ErrorKind.TOO_LARGE, message, field=field)

    def check_model(self, name: str) -> None:
        """Raises MODEL_NOT_FOUND for another model's name; "" is this one."""
        if name not in ("", self.checkpoint.name):
            message = f"there is no model {name!r} here, only {self.checkpoint.name!r}"
            raise HeddleError(ErrorKind.MODEL_NOT_FOUND, message, field="model")


def data_type_of(wanted: tensor_pb2.DataType) -> tensor_pb2.DataType:
    """Raises INVALID_INPUT for a number that the contract does not know."""
    if wanted not in DATA_TYPES:
        raise HeddleError(ErrorKind.INVALID_INPUT, f"there is no data type {wanted}", field="data_type")
    return wanted or tensor_pb2.DATA_TYPE_FLOAT32
