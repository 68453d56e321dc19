"""The contract is TEI's, to the last field number: a difference would garble requests without an error."""

import hashlib

from google.protobuf import descriptor_pb2

from heddle.tei.v1 import tei_pb2
from tests.contract.descriptors import listing

# The hash of `listing` for huggingface/text-embeddings-inference, proto/tei.proto at 0d124dc.
ORIGINAL = "73253c59d6b043706be8fa716bcce6e312250da3d6904a410ba601132769fa14"


def test_names_numbers_and_types_are_those_of_the_original() -> None:
    file = descriptor_pb2.FileDescriptorProto()
    tei_pb2.DESCRIPTOR.CopyToProto(file)
    lines = "\n".join(listing(file))
    assert file.package == "tei.v1"
    assert hashlib.sha256(lines.encode()).hexdigest() == ORIGINAL, lines
