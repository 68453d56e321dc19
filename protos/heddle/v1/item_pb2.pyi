from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ItemContext(_message.Message):
    __slots__ = ("deadline_ms", "priority", "flow", "request_id", "traceparent", "tracestate")
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    FLOW_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    deadline_ms: int
    priority: int
    flow: str
    request_id: str
    traceparent: str
    tracestate: str
    def __init__(self, deadline_ms: _Optional[int] = ..., priority: _Optional[int] = ..., flow: _Optional[str] = ..., request_id: _Optional[str] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("waiting_items", "waiting_cost", "running_cost", "running_ms", "heartbeat_ms", "unready_reason")
    WAITING_ITEMS_FIELD_NUMBER: _ClassVar[int]
    WAITING_COST_FIELD_NUMBER: _ClassVar[int]
    RUNNING_COST_FIELD_NUMBER: _ClassVar[int]
    RUNNING_MS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    UNREADY_REASON_FIELD_NUMBER: _ClassVar[int]
    waiting_items: int
    waiting_cost: int
    running_cost: int
    running_ms: int
    heartbeat_ms: int
    unready_reason: str
    def __init__(self, waiting_items: _Optional[int] = ..., waiting_cost: _Optional[int] = ..., running_cost: _Optional[int] = ..., running_ms: _Optional[int] = ..., heartbeat_ms: _Optional[int] = ..., unready_reason: _Optional[str] = ...) -> None: ...

class OutcomePiece(_message.Message):
    __slots__ = ("id", "data", "ends_part", "is_last")
    ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ENDS_PART_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    id: int
    data: bytes
    ends_part: bool
    is_last: bool
    def __init__(self, id: _Optional[int] = ..., data: _Optional[bytes] = ..., ends_part: bool = ..., is_last: bool = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("tokenize_us", "queue_us", "compute_us", "total_us")
    TOKENIZE_US_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    TOTAL_US_FIELD_NUMBER: _ClassVar[int]
    tokenize_us: int
    queue_us: int
    compute_us: int
    total_us: int
    def __init__(self, tokenize_us: _Optional[int] = ..., queue_us: _Optional[int] = ..., compute_us: _Optional[int] = ..., total_us: _Optional[int] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("tokens", "truncated_inputs", "characters", "device")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_INPUTS_FIELD_NUMBER: _ClassVar[int]
    CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    truncated_inputs: int
    characters: int
    device: str
    def __init__(self, tokens: _Optional[int] = ..., truncated_inputs: _Optional[int] = ..., characters: _Optional[int] = ..., device: _Optional[str] = ...) -> None: ...
