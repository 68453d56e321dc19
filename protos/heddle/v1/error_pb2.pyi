from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_KIND_UNSPECIFIED: _ClassVar[ErrorKind]
    ERROR_KIND_INVALID_INPUT: _ClassVar[ErrorKind]
    ERROR_KIND_EMPTY_INPUT: _ClassVar[ErrorKind]
    ERROR_KIND_TOO_LARGE: _ClassVar[ErrorKind]
    ERROR_KIND_WRONG_TASK: _ClassVar[ErrorKind]
    ERROR_KIND_MODEL_NOT_FOUND: _ClassVar[ErrorKind]
    ERROR_KIND_UNAUTHENTICATED: _ClassVar[ErrorKind]
    ERROR_KIND_OVERLOADED: _ClassVar[ErrorKind]
    ERROR_KIND_DEADLINE_EXCEEDED: _ClassVar[ErrorKind]
    ERROR_KIND_CANCELLED: _ClassVar[ErrorKind]
    ERROR_KIND_UNAVAILABLE: _ClassVar[ErrorKind]
    ERROR_KIND_MISMATCH: _ClassVar[ErrorKind]
    ERROR_KIND_UNIMPLEMENTED: _ClassVar[ErrorKind]
    ERROR_KIND_BAD_OUTPUT: _ClassVar[ErrorKind]
    ERROR_KIND_INTERNAL: _ClassVar[ErrorKind]
ERROR_KIND_UNSPECIFIED: ErrorKind
ERROR_KIND_INVALID_INPUT: ErrorKind
ERROR_KIND_EMPTY_INPUT: ErrorKind
ERROR_KIND_TOO_LARGE: ErrorKind
ERROR_KIND_WRONG_TASK: ErrorKind
ERROR_KIND_MODEL_NOT_FOUND: ErrorKind
ERROR_KIND_UNAUTHENTICATED: ErrorKind
ERROR_KIND_OVERLOADED: ErrorKind
ERROR_KIND_DEADLINE_EXCEEDED: ErrorKind
ERROR_KIND_CANCELLED: ErrorKind
ERROR_KIND_UNAVAILABLE: ErrorKind
ERROR_KIND_MISMATCH: ErrorKind
ERROR_KIND_UNIMPLEMENTED: ErrorKind
ERROR_KIND_BAD_OUTPUT: ErrorKind
ERROR_KIND_INTERNAL: ErrorKind

class Error(_message.Message):
    __slots__ = ("kind", "message", "field", "retry_after_ms")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    kind: ErrorKind
    message: str
    field: str
    retry_after_ms: int
    def __init__(self, kind: _Optional[_Union[ErrorKind, str]] = ..., message: _Optional[str] = ..., field: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...
