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

class Truncation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUNCATION_UNSPECIFIED: _ClassVar[Truncation]
    TRUNCATION_ALLOW: _ClassVar[Truncation]
    TRUNCATION_REFUSE: _ClassVar[Truncation]

class TruncationSide(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUNCATION_SIDE_UNSPECIFIED: _ClassVar[TruncationSide]
    TRUNCATION_SIDE_RIGHT: _ClassVar[TruncationSide]
    TRUNCATION_SIDE_LEFT: _ClassVar[TruncationSide]

class Aggregation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGGREGATION_UNSPECIFIED: _ClassVar[Aggregation]
    AGGREGATION_NONE: _ClassVar[Aggregation]
    AGGREGATION_SIMPLE: _ClassVar[Aggregation]
    AGGREGATION_FIRST: _ClassVar[Aggregation]
    AGGREGATION_AVERAGE: _ClassVar[Aggregation]
    AGGREGATION_MAX: _ClassVar[Aggregation]
TRUNCATION_UNSPECIFIED: Truncation
TRUNCATION_ALLOW: Truncation
TRUNCATION_REFUSE: Truncation
TRUNCATION_SIDE_UNSPECIFIED: TruncationSide
TRUNCATION_SIDE_RIGHT: TruncationSide
TRUNCATION_SIDE_LEFT: TruncationSide
AGGREGATION_UNSPECIFIED: Aggregation
AGGREGATION_NONE: Aggregation
AGGREGATION_SIMPLE: Aggregation
AGGREGATION_FIRST: Aggregation
AGGREGATION_AVERAGE: Aggregation
AGGREGATION_MAX: Aggregation

class Input(_message.Message):
    __slots__ = ("text", "token_ids")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    text: str
    token_ids: bytes
    def __init__(self, text: _Optional[str] = ..., token_ids: _Optional[bytes] = ...) -> None: ...

class TokenizedInput(_message.Message):
    __slots__ = ("token_ids", "type_ids")
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TYPE_IDS_FIELD_NUMBER: _ClassVar[int]
    token_ids: bytes
    type_ids: bytes
    def __init__(self, token_ids: _Optional[bytes] = ..., type_ids: _Optional[bytes] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("model", "inputs", "truncation", "truncation_side", "prompt_name", "skip_normalization", "dimensions", "data_type", "input_tokens_max", "task", "embedding_kinds")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_SIDE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_NAME_FIELD_NUMBER: _ClassVar[int]
    SKIP_NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_KINDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.RepeatedCompositeFieldContainer[Input]
    truncation: Truncation
    truncation_side: TruncationSide
    prompt_name: str
    skip_normalization: bool
    dimensions: int
    data_type: _tensor_pb2.DataType
    input_tokens_max: int
    task: str
    embedding_kinds: _containers.RepeatedScalarFieldContainer[_model_pb2.EmbeddingKind]
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[Input, _Mapping]]] = ..., truncation: _Optional[_Union[Truncation, str]] = ..., truncation_side: _Optional[_Union[TruncationSide, str]] = ..., prompt_name: _Optional[str] = ..., skip_normalization: bool = ..., dimensions: _Optional[int] = ..., data_type: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., input_tokens_max: _Optional[int] = ..., task: _Optional[str] = ..., embedding_kinds: _Optional[_Iterable[_Union[_model_pb2.EmbeddingKind, str]]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("embeddings", "usage", "timings", "sparse_embeddings", "colbert_embeddings")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    SPARSE_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    COLBERT_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    embeddings: _tensor_pb2.Tensor
    usage: _item_pb2.Usage
    timings: _item_pb2.Timings
    sparse_embeddings: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.SparseTensor]
    colbert_embeddings: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    def __init__(self, embeddings: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., usage: _Optional[_Union[_item_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_item_pb2.Timings, _Mapping]] = ..., sparse_embeddings: _Optional[_Iterable[_Union[_tensor_pb2.SparseTensor, _Mapping]]] = ..., colbert_embeddings: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ...) -> None: ...

class EmbedTokensRequest(_message.Message):
    __slots__ = ("model", "inputs", "truncation", "truncation_side", "prompt_name", "data_type", "input_tokens_max", "task")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_SIDE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.RepeatedCompositeFieldContainer[Input]
    truncation: Truncation
    truncation_side: TruncationSide
    prompt_name: str
    data_type: _tensor_pb2.DataType
    input_tokens_max: int
    task: str
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[Input, _Mapping]]] = ..., truncation: _Optional[_Union[Truncation, str]] = ..., truncation_side: _Optional[_Union[TruncationSide, str]] = ..., prompt_name: _Optional[str] = ..., data_type: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., input_tokens_max: _Optional[int] = ..., task: _Optional[str] = ...) -> None: ...

class EmbedTokensResponse(_message.Message):
    __slots__ = ("embeddings", "usage", "timings")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    usage: _item_pb2.Usage
    timings: _item_pb2.Timings
    def __init__(self, embeddings: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., usage: _Optional[_Union[_item_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_item_pb2.Timings, _Mapping]] = ...) -> None: ...

class EmbedSparseRequest(_message.Message):
    __slots__ = ("model", "inputs", "truncation", "truncation_side", "prompt_name", "input_tokens_max", "task")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_SIDE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_NAME_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.RepeatedCompositeFieldContainer[Input]
    truncation: Truncation
    truncation_side: TruncationSide
    prompt_name: str
    input_tokens_max: int
    task: str
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[Input, _Mapping]]] = ..., truncation: _Optional[_Union[Truncation, str]] = ..., truncation_side: _Optional[_Union[TruncationSide, str]] = ..., prompt_name: _Optional[str] = ..., input_tokens_max: _Optional[int] = ..., task: _Optional[str] = ...) -> None: ...

class EmbedSparseResponse(_message.Message):
    __slots__ = ("embeddings", "usage", "timings")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.SparseTensor]
    usage: _item_pb2.Usage
    timings: _item_pb2.Timings
    def __init__(self, embeddings: _Optional[_Iterable[_Union[_tensor_pb2.SparseTensor, _Mapping]]] = ..., usage: _Optional[_Union[_item_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_item_pb2.Timings, _Mapping]] = ...) -> None: ...

class RerankRequest(_message.Message):
    __slots__ = ("model", "query", "documents", "truncation", "truncation_side", "raw_scores", "instruction", "document_tokens_max", "input_tokens_max", "tokenized_inputs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_SIDE_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    TOKENIZED_INPUTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    query: str
    documents: _containers.RepeatedScalarFieldContainer[str]
    truncation: Truncation
    truncation_side: TruncationSide
    raw_scores: bool
    instruction: str
    document_tokens_max: int
    input_tokens_max: int
    tokenized_inputs: _containers.RepeatedCompositeFieldContainer[TokenizedInput]
    def __init__(self, model: _Optional[str] = ..., query: _Optional[str] = ..., documents: _Optional[_Iterable[str]] = ..., truncation: _Optional[_Union[Truncation, str]] = ..., truncation_side: _Optional[_Union[TruncationSide, str]] = ..., raw_scores: bool = ..., instruction: _Optional[str] = ..., document_tokens_max: _Optional[int] = ..., input_tokens_max: _Optional[int] = ..., tokenized_inputs: _Optional[_Iterable[_Union[TokenizedInput, _Mapping]]] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("scores", "usage", "timings", "ranking")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    RANKING_FIELD_NUMBER: _ClassVar[int]
    scores: bytes
    usage: _item_pb2.Usage
    timings: _item_pb2.Timings
    ranking: bytes
    def __init__(self, scores: _Optional[bytes] = ..., usage: _Optional[_Union[_item_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_item_pb2.Timings, _Mapping]] = ..., ranking: _Optional[bytes] = ...) -> None: ...

class TextOrPair(_message.Message):
    __slots__ = ("text", "pair", "tokenized")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PAIR_FIELD_NUMBER: _ClassVar[int]
    TOKENIZED_FIELD_NUMBER: _ClassVar[int]
    text: str
    pair: str
    tokenized: TokenizedInput
    def __init__(self, text: _Optional[str] = ..., pair: _Optional[str] = ..., tokenized: _Optional[_Union[TokenizedInput, _Mapping]] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("model", "inputs", "truncation", "truncation_side", "raw_scores", "input_tokens_max")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_SIDE_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.RepeatedCompositeFieldContainer[TextOrPair]
    truncation: Truncation
    truncation_side: TruncationSide
    raw_scores: bool
    input_tokens_max: int
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TextOrPair, _Mapping]]] = ..., truncation: _Optional[_Union[Truncation, str]] = ..., truncation_side: _Optional[_Union[TruncationSide, str]] = ..., raw_scores: bool = ..., input_tokens_max: _Optional[int] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("scores", "labels", "usage", "timings", "ranking")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    RANKING_FIELD_NUMBER: _ClassVar[int]
    scores: bytes
    labels: _containers.RepeatedScalarFieldContainer[str]
    usage: _item_pb2.Usage
    timings: _item_pb2.Timings
    ranking: bytes
    def __init__(self, scores: _Optional[bytes] = ..., labels: _Optional[_Iterable[str]] = ..., usage: _Optional[_Union[_item_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_item_pb2.Timings, _Mapping]] = ..., ranking: _Optional[bytes] = ...) -> None: ...

class PredictTokensRequest(_message.Message):
    __slots__ = ("model", "inputs", "truncation", "truncation_side", "raw_scores", "aggregation", "input_tokens_max", "tokenized_inputs", "with_words", "with_outside")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_SIDE_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    TOKENIZED_INPUTS_FIELD_NUMBER: _ClassVar[int]
    WITH_WORDS_FIELD_NUMBER: _ClassVar[int]
    WITH_OUTSIDE_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.RepeatedScalarFieldContainer[str]
    truncation: Truncation
    truncation_side: TruncationSide
    raw_scores: bool
    aggregation: Aggregation
    input_tokens_max: int
    tokenized_inputs: _containers.RepeatedCompositeFieldContainer[TokenizedInput]
    with_words: bool
    with_outside: bool
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Iterable[str]] = ..., truncation: _Optional[_Union[Truncation, str]] = ..., truncation_side: _Optional[_Union[TruncationSide, str]] = ..., raw_scores: bool = ..., aggregation: _Optional[_Union[Aggregation, str]] = ..., input_tokens_max: _Optional[int] = ..., tokenized_inputs: _Optional[_Iterable[_Union[TokenizedInput, _Mapping]]] = ..., with_words: bool = ..., with_outside: bool = ...) -> None: ...

class Entity(_message.Message):
    __slots__ = ("text", "token_id", "start_char", "end_char", "scores", "word", "special")
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    START_CHAR_FIELD_NUMBER: _ClassVar[int]
    END_CHAR_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    WORD_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_FIELD_NUMBER: _ClassVar[int]
    text: str
    token_id: int
    start_char: int
    end_char: int
    scores: _containers.ScalarMap[str, float]
    word: str
    special: bool
    def __init__(self, text: _Optional[str] = ..., token_id: _Optional[int] = ..., start_char: _Optional[int] = ..., end_char: _Optional[int] = ..., scores: _Optional[_Mapping[str, float]] = ..., word: _Optional[str] = ..., special: bool = ...) -> None: ...

class Entities(_message.Message):
    __slots__ = ("entities",)
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    entities: _containers.RepeatedCompositeFieldContainer[Entity]
    def __init__(self, entities: _Optional[_Iterable[_Union[Entity, _Mapping]]] = ...) -> None: ...

class PredictTokensResponse(_message.Message):
    __slots__ = ("results", "usage", "timings")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Entities]
    usage: _item_pb2.Usage
    timings: _item_pb2.Timings
    def __init__(self, results: _Optional[_Iterable[_Union[Entities, _Mapping]]] = ..., usage: _Optional[_Union[_item_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_item_pb2.Timings, _Mapping]] = ...) -> None: ...

class SimilarityRequest(_message.Message):
    __slots__ = ("model", "source", "sentences", "truncation", "truncation_side", "prompt_name", "input_tokens_max", "task")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_SIDE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_NAME_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    model: str
    source: str
    sentences: _containers.RepeatedScalarFieldContainer[str]
    truncation: Truncation
    truncation_side: TruncationSide
    prompt_name: str
    input_tokens_max: int
    task: str
    def __init__(self, model: _Optional[str] = ..., source: _Optional[str] = ..., sentences: _Optional[_Iterable[str]] = ..., truncation: _Optional[_Union[Truncation, str]] = ..., truncation_side: _Optional[_Union[TruncationSide, str]] = ..., prompt_name: _Optional[str] = ..., input_tokens_max: _Optional[int] = ..., task: _Optional[str] = ...) -> None: ...

class SimilarityResponse(_message.Message):
    __slots__ = ("scores", "usage", "timings")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    scores: bytes
    usage: _item_pb2.Usage
    timings: _item_pb2.Timings
    def __init__(self, scores: _Optional[bytes] = ..., usage: _Optional[_Union[_item_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_item_pb2.Timings, _Mapping]] = ...) -> None: ...

class TokenizeRequest(_message.Message):
    __slots__ = ("model", "inputs", "skip_special_tokens", "prompt_name")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    SKIP_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_NAME_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.RepeatedScalarFieldContainer[str]
    skip_special_tokens: bool
    prompt_name: str
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Iterable[str]] = ..., skip_special_tokens: bool = ..., prompt_name: _Optional[str] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("id", "text", "special", "start_byte", "end_byte")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_FIELD_NUMBER: _ClassVar[int]
    START_BYTE_FIELD_NUMBER: _ClassVar[int]
    END_BYTE_FIELD_NUMBER: _ClassVar[int]
    id: int
    text: str
    special: bool
    start_byte: int
    end_byte: int
    def __init__(self, id: _Optional[int] = ..., text: _Optional[str] = ..., special: bool = ..., start_byte: _Optional[int] = ..., end_byte: _Optional[int] = ...) -> None: ...

class Tokens(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ...) -> None: ...

class TokenizeResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Tokens]
    def __init__(self, results: _Optional[_Iterable[_Union[Tokens, _Mapping]]] = ...) -> None: ...

class DecodeRequest(_message.Message):
    __slots__ = ("model", "token_ids", "keep_special_tokens")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    KEEP_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    model: str
    token_ids: _containers.RepeatedScalarFieldContainer[bytes]
    keep_special_tokens: bool
    def __init__(self, model: _Optional[str] = ..., token_ids: _Optional[_Iterable[bytes]] = ..., keep_special_tokens: bool = ...) -> None: ...

class DecodeResponse(_message.Message):
    __slots__ = ("texts",)
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, texts: _Optional[_Iterable[str]] = ...) -> None: ...

class InferenceServiceGetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class InferenceServiceGetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ...) -> None: ...

class InferenceItem(_message.Message):
    __slots__ = ("id", "context", "embed", "embed_tokens", "embed_sparse", "rerank", "predict", "predict_tokens", "similarity", "tokenize", "decode")
    ID_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    EMBED_FIELD_NUMBER: _ClassVar[int]
    EMBED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EMBED_SPARSE_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    PREDICT_FIELD_NUMBER: _ClassVar[int]
    PREDICT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    TOKENIZE_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    id: int
    context: _item_pb2.ItemContext
    embed: EmbedRequest
    embed_tokens: EmbedTokensRequest
    embed_sparse: EmbedSparseRequest
    rerank: RerankRequest
    predict: PredictRequest
    predict_tokens: PredictTokensRequest
    similarity: SimilarityRequest
    tokenize: TokenizeRequest
    decode: DecodeRequest
    def __init__(self, id: _Optional[int] = ..., context: _Optional[_Union[_item_pb2.ItemContext, _Mapping]] = ..., embed: _Optional[_Union[EmbedRequest, _Mapping]] = ..., embed_tokens: _Optional[_Union[EmbedTokensRequest, _Mapping]] = ..., embed_sparse: _Optional[_Union[EmbedSparseRequest, _Mapping]] = ..., rerank: _Optional[_Union[RerankRequest, _Mapping]] = ..., predict: _Optional[_Union[PredictRequest, _Mapping]] = ..., predict_tokens: _Optional[_Union[PredictTokensRequest, _Mapping]] = ..., similarity: _Optional[_Union[SimilarityRequest, _Mapping]] = ..., tokenize: _Optional[_Union[TokenizeRequest, _Mapping]] = ..., decode: _Optional[_Union[DecodeRequest, _Mapping]] = ...) -> None: ...

class InferenceServiceInferRequest(_message.Message):
    __slots__ = ("items", "cancel_ids", "takes_pieces")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_IDS_FIELD_NUMBER: _ClassVar[int]
    TAKES_PIECES_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[InferenceItem]
    cancel_ids: _containers.RepeatedScalarFieldContainer[int]
    takes_pieces: bool
    def __init__(self, items: _Optional[_Iterable[_Union[InferenceItem, _Mapping]]] = ..., cancel_ids: _Optional[_Iterable[int]] = ..., takes_pieces: bool = ...) -> None: ...

class InferenceOutcome(_message.Message):
    __slots__ = ("id", "embed", "embed_tokens", "embed_sparse", "rerank", "predict", "predict_tokens", "similarity", "tokenize", "decode", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    EMBED_FIELD_NUMBER: _ClassVar[int]
    EMBED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EMBED_SPARSE_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    PREDICT_FIELD_NUMBER: _ClassVar[int]
    PREDICT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    TOKENIZE_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: int
    embed: EmbedResponse
    embed_tokens: EmbedTokensResponse
    embed_sparse: EmbedSparseResponse
    rerank: RerankResponse
    predict: PredictResponse
    predict_tokens: PredictTokensResponse
    similarity: SimilarityResponse
    tokenize: TokenizeResponse
    decode: DecodeResponse
    error: _error_pb2.Error
    def __init__(self, id: _Optional[int] = ..., embed: _Optional[_Union[EmbedResponse, _Mapping]] = ..., embed_tokens: _Optional[_Union[EmbedTokensResponse, _Mapping]] = ..., embed_sparse: _Optional[_Union[EmbedSparseResponse, _Mapping]] = ..., rerank: _Optional[_Union[RerankResponse, _Mapping]] = ..., predict: _Optional[_Union[PredictResponse, _Mapping]] = ..., predict_tokens: _Optional[_Union[PredictTokensResponse, _Mapping]] = ..., similarity: _Optional[_Union[SimilarityResponse, _Mapping]] = ..., tokenize: _Optional[_Union[TokenizeResponse, _Mapping]] = ..., decode: _Optional[_Union[DecodeResponse, _Mapping]] = ..., error: _Optional[_Union[_error_pb2.Error, _Mapping]] = ...) -> None: ...

class InferenceServiceInferResponse(_message.Message):
    __slots__ = ("outcomes", "load", "draining", "pieces")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[InferenceOutcome]
    load: _item_pb2.Load
    draining: bool
    pieces: _containers.RepeatedCompositeFieldContainer[_item_pb2.OutcomePiece]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[InferenceOutcome, _Mapping]]] = ..., load: _Optional[_Union[_item_pb2.Load, _Mapping]] = ..., draining: bool = ..., pieces: _Optional[_Iterable[_Union[_item_pb2.OutcomePiece, _Mapping]]] = ...) -> None: ...
