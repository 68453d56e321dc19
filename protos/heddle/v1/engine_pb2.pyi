from heddle.v1 import error_pb2 as _error_pb2
from heddle.v1 import item_pb2 as _item_pb2
from heddle.v1 import model_pb2 as _model_pb2
from heddle.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Output(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_UNSPECIFIED: _ClassVar[Output]
    OUTPUT_VECTOR: _ClassVar[Output]
    OUTPUT_TOKEN_VECTORS: _ClassVar[Output]
    OUTPUT_SPARSE_VECTOR: _ClassVar[Output]
    OUTPUT_LOGITS: _ClassVar[Output]
    OUTPUT_TOKEN_LOGITS: _ClassVar[Output]
    OUTPUT_COLBERT_VECTORS: _ClassVar[Output]
OUTPUT_UNSPECIFIED: Output
OUTPUT_VECTOR: Output
OUTPUT_TOKEN_VECTORS: Output
OUTPUT_SPARSE_VECTOR: Output
OUTPUT_LOGITS: Output
OUTPUT_TOKEN_LOGITS: Output
OUTPUT_COLBERT_VECTORS: Output

class Sequences(_message.Message):
    __slots__ = ("token_ids", "lengths", "type_ids", "prompt_tokens", "output", "skip_normalization", "dimensions", "data_type", "more_outputs", "task")
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    TYPE_IDS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    SKIP_NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    MORE_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    token_ids: bytes
    lengths: bytes
    type_ids: bytes
    prompt_tokens: int
    output: Output
    skip_normalization: bool
    dimensions: int
    data_type: _tensor_pb2.DataType
    more_outputs: _containers.RepeatedScalarFieldContainer[Output]
    task: str
    def __init__(self, token_ids: _Optional[bytes] = ..., lengths: _Optional[bytes] = ..., type_ids: _Optional[bytes] = ..., prompt_tokens: _Optional[int] = ..., output: _Optional[_Union[Output, str]] = ..., skip_normalization: bool = ..., dimensions: _Optional[int] = ..., data_type: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., more_outputs: _Optional[_Iterable[_Union[Output, str]]] = ..., task: _Optional[str] = ...) -> None: ...

class Submission(_message.Message):
    __slots__ = ("id", "context", "sequences")
    ID_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    id: int
    context: _item_pb2.ItemContext
    sequences: Sequences
    def __init__(self, id: _Optional[int] = ..., context: _Optional[_Union[_item_pb2.ItemContext, _Mapping]] = ..., sequences: _Optional[_Union[Sequences, _Mapping]] = ...) -> None: ...

class EngineServiceInferRequest(_message.Message):
    __slots__ = ("items", "cancel_ids", "tokenizer_fingerprint", "takes_pieces")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_IDS_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TAKES_PIECES_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Submission]
    cancel_ids: _containers.RepeatedScalarFieldContainer[int]
    tokenizer_fingerprint: str
    takes_pieces: bool
    def __init__(self, items: _Optional[_Iterable[_Union[Submission, _Mapping]]] = ..., cancel_ids: _Optional[_Iterable[int]] = ..., tokenizer_fingerprint: _Optional[str] = ..., takes_pieces: bool = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("tensor", "tokens", "sparse")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.Tensor
    tokens: _tensor_pb2.TokenTensor
    sparse: _tensor_pb2.SparseTensors
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., tokens: _Optional[_Union[_tensor_pb2.TokenTensor, _Mapping]] = ..., sparse: _Optional[_Union[_tensor_pb2.SparseTensors, _Mapping]] = ...) -> None: ...

class SequenceError(_message.Message):
    __slots__ = ("index", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    error: _error_pb2.Error
    def __init__(self, index: _Optional[int] = ..., error: _Optional[_Union[_error_pb2.Error, _Mapping]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("id", "error", "results", "errors", "queue_us", "compute_us")
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    id: int
    error: _error_pb2.Error
    results: _containers.RepeatedCompositeFieldContainer[Result]
    errors: _containers.RepeatedCompositeFieldContainer[SequenceError]
    queue_us: int
    compute_us: int
    def __init__(self, id: _Optional[int] = ..., error: _Optional[_Union[_error_pb2.Error, _Mapping]] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., errors: _Optional[_Iterable[_Union[SequenceError, _Mapping]]] = ..., queue_us: _Optional[int] = ..., compute_us: _Optional[int] = ...) -> None: ...

class EngineServiceInferResponse(_message.Message):
    __slots__ = ("outcomes", "load", "draining", "pieces")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    load: _item_pb2.Load
    draining: bool
    pieces: _containers.RepeatedCompositeFieldContainer[_item_pb2.OutcomePiece]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., load: _Optional[_Union[_item_pb2.Load, _Mapping]] = ..., draining: bool = ..., pieces: _Optional[_Iterable[_Union[_item_pb2.OutcomePiece, _Mapping]]] = ...) -> None: ...

class EncodeRequest(_message.Message):
    __slots__ = ("sequences", "tokenizer_fingerprint")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    sequences: Sequences
    tokenizer_fingerprint: str
    def __init__(self, sequences: _Optional[_Union[Sequences, _Mapping]] = ..., tokenizer_fingerprint: _Optional[str] = ...) -> None: ...

class EncodeResponse(_message.Message):
    __slots__ = ("outcome",)
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    outcome: Outcome
    def __init__(self, outcome: _Optional[_Union[Outcome, _Mapping]] = ...) -> None: ...

class EngineServiceGetModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EngineServiceGetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ...) -> None: ...
