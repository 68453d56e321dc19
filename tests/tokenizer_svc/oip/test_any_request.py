"""Every request is quickly translated or refused as invalid."""

from hypothesis import given
from hypothesis import strategies as st

from heddle.checkpoint import ModelKind
from heddle.oip.v2 import open_inference_grpc_pb2 as oip
from heddle.rpc.errors import ErrorKind, HeddleError
from tests.tokenizer_svc.oip.calls import FIELDS, Tensor
from tokenizer_svc.oip.requests import translate

SIZES = st.sampled_from([0, 1, 2, 3, 8, -1, 2**40, 2**63 - 1])
NAMES = st.sampled_from(["text", "query", "documents", "input_ids", "attention_mask", "token_type_ids"])
DATATYPES = st.sampled_from(["BYTES", "FP32", "", *FIELDS])
CONTENTS = st.one_of(
    st.builds(oip.InferTensorContents, bytes_contents=st.lists(st.binary(max_size=3), max_size=4)),
    st.builds(oip.InferTensorContents, int64_contents=st.lists(st.integers(-2, 2**40), max_size=9)),
)
RAW = st.one_of(
    st.binary(max_size=40),
    st.lists(st.text(max_size=3)).map(lambda texts: b"".join(encode(text.encode()) for text in texts)),
)
PARAMETERS = st.dictionaries(
    st.sampled_from(["truncate", "dimensions", "aggregation", "content_type", "?"]),
    st.one_of(
        st.builds(oip.InferParameter),
        st.builds(oip.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1)),
        st.builds(oip.InferParameter, string_param=st.text(max_size=3)),
        st.builds(oip.InferParameter, bool_param=st.booleans()),
    ),
    max_size=1,
)
TENSORS = st.builds(
    Tensor, name=NAMES, datatype=DATATYPES, shape=st.lists(SIZES, max_size=3), contents=st.none() | CONTENTS
)
REQUESTS = st.builds(
    oip.ModelInferRequest,
    inputs=st.lists(TENSORS, max_size=3),
    raw_input_contents=st.lists(RAW, max_size=3),
    parameters=PARAMETERS,
)


def encode(text: bytes) -> bytes:
    return len(text).to_bytes(4, "little") + text


@given(REQUESTS, st.sampled_from(ModelKind))
def test_a_request_is_translated_or_refused(request: oip.ModelInferRequest, kind: ModelKind) -> None:
    try:
        translate(request, kind, 2048)
    except HeddleError as error:
        assert error.kind is ErrorKind.INVALID_INPUT  # noqa: PT017
