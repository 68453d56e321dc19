"""Every name, number and type of a .proto file as lines of text, to compare contracts with each other."""

from collections.abc import Iterable, Iterator

from google.protobuf import descriptor_pb2

Field = descriptor_pb2.FieldDescriptorProto
Message = descriptor_pb2.DescriptorProto


def listing(file: descriptor_pb2.FileDescriptorProto) -> list[str]:
    enums = [*((enum.name, enum) for enum in file.enum_type)]
    messages = list(all_messages(file.message_type))
    enums += [(f"{name}.{enum.name}", enum) for name, message in messages for enum in message.enum_type]
    return [
        *(method_line(service.name, method) for service in file.service for method in service.method),
        *(f"{name}.{value.name} = {value.number}" for name, enum in enums for value in enum.value),
        *(field_line(name, message, field) for name, message in messages for field in message.field),
    ]


def all_messages(messages: Iterable[Message], home: str = "") -> Iterator[tuple[str, Message]]:
    """The messages and those inside them, with their names."""
    for message in messages:
        name = f"{home}{message.name}"
        yield name, message
        yield from all_messages(message.nested_type, f"{name}.")


def method_line(service: str, method: descriptor_pb2.MethodDescriptorProto) -> str:
    request = f"{'stream ' * method.client_streaming}{method.input_type}"
    return f"{service}.{method.name}({request}) -> {'stream ' * method.server_streaming}{method.output_type}"


def field_line(name: str, message: Message, field: Field) -> str:
    kind = field.type_name or Field.Type.Name(field.type)
    label = "optional" if field.proto3_optional else Field.Label.Name(field.label)
    oneof = ""
    if field.HasField("oneof_index") and not field.proto3_optional:
        oneof = f" of {message.oneof_decl[field.oneof_index].name}"
    return f"{name}.{field.name} = {field.number}: {label} {kind}{oneof}"
