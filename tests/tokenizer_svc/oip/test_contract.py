"""The contract equals the published one, including field numbers: a difference would corrupt requests silently."""

import hashlib

from google.protobuf import descriptor_pb2

from heddle.oip.v2 import open_inference_grpc_pb2 as oip
from tests.contract.descriptors import listing

# The hash of `listing` for specification/protocol/open_inference_grpc.proto in kserve/open-inference-protocol at
# d49cc23.
ORIGINAL = "7b7919975f84787265428ada137e057fc39d60478671d6f7a63f7b4cf3c3ea9c"


def test_names_numbers_and_types_are_those_of_the_original() -> None:
    file = descriptor_pb2.FileDescriptorProto()
    oip.DESCRIPTOR.CopyToProto(file)
    lines = "\n".join(listing(file))
    assert file.package == "inference"
    assert hashlib.sha256(lines.encode()).hexdigest() == ORIGINAL, lines
