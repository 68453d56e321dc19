"""The contract of the previous version, and of a made-up next version.

previous.binpb holds the .proto files of heddle.v1 at a9f5268 as a FileDescriptorSet. A release replaces it:

    cd protos && python -m grpc_tools.protoc -Iheddle/v1=heddle/v1 --include_imports \\
        --descriptor_set_out=../tests/contract/previous.binpb heddle/v1/*.proto
"""

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from heddle.v1 import engine_pb2, error_pb2, inference_pb2, item_pb2, model_pb2, tensor_pb2

Field = descriptor_pb2.FieldDescriptorProto
MODULES = (error_pb2, item_pb2, model_pb2, tensor_pb2, engine_pb2, inference_pb2)
UNKNOWN = 900  # a field number that no message of this version has


def previous_files() -> descriptor_pb2.FileDescriptorSet:
    content = (Path(__file__).parent / "previous.binpb").read_bytes()
    return descriptor_pb2.FileDescriptorSet.FromString(content)


def current_files() -> descriptor_pb2.FileDescriptorSet:
    files = descriptor_pb2.FileDescriptorSet()
    for module in MODULES:
        module.DESCRIPTOR.CopyToProto(files.file.add())
    return files


def next_files() -> descriptor_pb2.FileDescriptorSet:
    """This version with a field more in every message, and a request and a result that this version does not know."""
    files = current_files()
    for file in files.file:
        for message in file.message_type:
            message.field.add(
                name="from_the_future", number=UNKNOWN, type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL
            )
            if message.name in ("InferenceItem", "InferenceOutcome"):
                message.field.add(
                    name="summarize",
                    number=UNKNOWN + 1,
                    type=Field.TYPE_MESSAGE,
                    type_name=".heddle.v1.DecodeRequest",
                    label=Field.LABEL_OPTIONAL,
                    oneof_index=0,
                )
    return files


@cache
def stubs(which: str) -> Any:
    """The message types of the `previous` or the `next` version, by name."""
    files = previous_files() if which == "previous" else next_files()
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    names = [f"{file.package}.{message.name}" for file in files.file for message in file.message_type]
    types = {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}
    return SimpleNamespace(**{name.rpartition(".")[2]: type_ for name, type_ in types.items()})
