from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_KIND_UNSPECIFIED: _ClassVar[ModelKind]
    MODEL_KIND_EMBEDDER: _ClassVar[ModelKind]
    MODEL_KIND_SPARSE_EMBEDDER: _ClassVar[ModelKind]
    MODEL_KIND_RERANKER: _ClassVar[ModelKind]
    MODEL_KIND_CLASSIFIER: _ClassVar[ModelKind]
    MODEL_KIND_TOKEN_CLASSIFIER: _ClassVar[ModelKind]
    MODEL_KIND_MULTI_VECTOR_EMBEDDER: _ClassVar[ModelKind]

class EmbeddingKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMBEDDING_KIND_UNSPECIFIED: _ClassVar[EmbeddingKind]
    EMBEDDING_KIND_DENSE: _ClassVar[EmbeddingKind]
    EMBEDDING_KIND_SPARSE: _ClassVar[EmbeddingKind]
    EMBEDDING_KIND_COLBERT: _ClassVar[EmbeddingKind]
MODEL_KIND_UNSPECIFIED: ModelKind
MODEL_KIND_EMBEDDER: ModelKind
MODEL_KIND_SPARSE_EMBEDDER: ModelKind
MODEL_KIND_RERANKER: ModelKind
MODEL_KIND_CLASSIFIER: ModelKind
MODEL_KIND_TOKEN_CLASSIFIER: ModelKind
MODEL_KIND_MULTI_VECTOR_EMBEDDER: ModelKind
EMBEDDING_KIND_UNSPECIFIED: EmbeddingKind
EMBEDDING_KIND_DENSE: EmbeddingKind
EMBEDDING_KIND_SPARSE: EmbeddingKind
EMBEDDING_KIND_COLBERT: EmbeddingKind

class Model(_message.Message):
    __slots__ = ("name", "kind", "tokenizer_fingerprint", "vocabulary_size", "sequence_tokens_max", "dimension", "labels", "pooling", "data_type", "revision", "backend", "multi_label", "prompt_names", "batch_tokens_max", "inputs_max", "uses_type_ids", "matryoshka", "version", "refuses_long_inputs", "tokenization_workers", "device", "tasks", "embedding_kinds", "reranks_by_cosine")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_SIZE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    POOLING_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    MULTI_LABEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_NAMES_FIELD_NUMBER: _ClassVar[int]
    BATCH_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    INPUTS_MAX_FIELD_NUMBER: _ClassVar[int]
    USES_TYPE_IDS_FIELD_NUMBER: _ClassVar[int]
    MATRYOSHKA_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REFUSES_LONG_INPUTS_FIELD_NUMBER: _ClassVar[int]
    TOKENIZATION_WORKERS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_KINDS_FIELD_NUMBER: _ClassVar[int]
    RERANKS_BY_COSINE_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: ModelKind
    tokenizer_fingerprint: str
    vocabulary_size: int
    sequence_tokens_max: int
    dimension: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    pooling: str
    data_type: str
    revision: str
    backend: str
    multi_label: bool
    prompt_names: _containers.RepeatedScalarFieldContainer[str]
    batch_tokens_max: int
    inputs_max: int
    uses_type_ids: bool
    matryoshka: bool
    version: str
    refuses_long_inputs: bool
    tokenization_workers: int
    device: str
    tasks: _containers.RepeatedScalarFieldContainer[str]
    embedding_kinds: _containers.RepeatedScalarFieldContainer[EmbeddingKind]
    reranks_by_cosine: bool
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[ModelKind, str]] = ..., tokenizer_fingerprint: _Optional[str] = ..., vocabulary_size: _Optional[int] = ..., sequence_tokens_max: _Optional[int] = ..., dimension: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., pooling: _Optional[str] = ..., data_type: _Optional[str] = ..., revision: _Optional[str] = ..., backend: _Optional[str] = ..., multi_label: bool = ..., prompt_names: _Optional[_Iterable[str]] = ..., batch_tokens_max: _Optional[int] = ..., inputs_max: _Optional[int] = ..., uses_type_ids: bool = ..., matryoshka: bool = ..., version: _Optional[str] = ..., refuses_long_inputs: bool = ..., tokenization_workers: _Optional[int] = ..., device: _Optional[str] = ..., tasks: _Optional[_Iterable[str]] = ..., embedding_kinds: _Optional[_Iterable[_Union[EmbeddingKind, str]]] = ..., reranks_by_cosine: bool = ...) -> None: ...
