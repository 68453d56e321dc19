"""The contract is TEI's, to the last field number: a difference would garble requests without an error."""

import hashlib

from google.protobuf import descriptor_pb2

from heddle.tei.v1 import tei_pb2

# The hash of `listing` for huggingface/text-embeddings-inference, proto/tei.proto at 0d124dc.
ORIGINAL = "73253c59d6b043706be8fa716bcce6e312250da3d6904a410ba601132769fa14"

Field = descriptor_pb2.FieldDescriptorProto


def listing(file: descriptor_pb2.FileDescriptorProto) -> list[str]:
    """All names, numbers and types of the contract."""
    return [
        *(method_line(service.name, method) for service in file.service for method in service.method),
        *(f"{enum.name}.{value.name} = {value.number}" for enum in file.enum_type for value in enum.value),
        *(field_line(message.name, field) for message in file.message_type for field in message.field),
    ]


def method_line(service: str, method: descriptor_pb2.MethodDescriptorProto) -> str:
    request = f"{'stream ' * method.client_streaming}{method.input_type}"
    return f"{service}.{method.name}({request}) -> {'stream ' * method.server_streaming}{method.output_type}"


def field_line(message: str, field: Field) -> str:
    kind = field.type_name or Field.Type.Name(field.type)
    label = "optional" if field.proto3_optional else Field.Label.Name(field.label)
    return f"{message}.{field.name} = {field.number}: {label} {kind}"


def test_names_numbers_and_types_are_those_of_the_original() -> None:
    file = descriptor_pb2.FileDescriptorProto()
    tei_pb2.DESCRIPTOR.CopyToProto(file)
    lines = "\n".join(listing(file))
    assert file.package == "tei.v1"
    assert hashlib.sha256(lines.encode()).hexdigest() == ORIGINAL, lines
