"""Finds changes that break callers with older stubs or services of an older version, like `buf breaking`."""

from collections.abc import Iterator, Mapping

from google.protobuf import descriptor_pb2

Field = descriptor_pb2.FieldDescriptorProto
Files = descriptor_pb2.FileDescriptorSet


def breaking_changes(old: Files, new: Files) -> list[str]:
    """Names, numbers and types of the old contract that the new one has changed or lost. Additions are fine, except
    fields that enter or leave a `oneof`, since a peer would then drop one of two fields."""
    return [
        *compare("RPC", rpcs(old), rpcs(new)),
        *compare("enum value", enum_values(old), enum_values(new)),
        *compare("field", fields(old), fields(new)),
        *reused_numbers(fields(old), fields(new)),
    ]


def compare(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name, meaning in old.items():
        if name not in new:
            yield f"{what} {name} is gone"
        elif new[name] != meaning:
            yield f"{what} {name} was {meaning}, and is {new[name]}"


def reused_numbers(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """A field that took the number of another."""
    names = {number_of(name, meaning): name for name, meaning in old.items()}
    for name, meaning in new.items():
        earlier = names.get(number_of(name, meaning), name)
        if earlier != name:
            yield f"field {name} has the number of {earlier}"


def number_of(field: str, meaning: str) -> tuple[str, str]:
    return field.rpartition(".")[0], meaning.split(maxsplit=1)[0]


def rpcs(files: Files) -> dict[str, str]:
    return {
        f"{file.package}.{service.name}.{method.name}": (
            f"{'stream ' * method.client_streaming}{method.input_type} -> "
            f"{'stream ' * method.server_streaming}{method.output_type}"
        )
        for file in files.file
        for service in file.service
        for method in service.method
    }


def messages(files: Files) -> Iterator[tuple[str, descriptor_pb2.DescriptorProto]]:
    for file in files.file:
        stack = [(f"{file.package}.{message.name}", message) for message in file.message_type]
        while stack:
            name, message = stack.pop()
            yield name, message
            stack += [(f"{name}.{nested.name}", nested) for nested in message.nested_type]


def enum_values(files: Files) -> dict[str, str]:
    enums = [(f"{file.package}.{enum.name}", enum) for file in files.file for enum in file.enum_type]
    enums += [(f"{name}.{enum.name}", enum) for name, message in messages(files) for enum in message.enum_type]
    return {f"{name}.{value.name}": str(value.number) for name, enum in enums for value in enum.value}


def fields(files: Files) -> dict[str, str]:
    return {
        f"{name}.{field.name}": describe(message, field) for name, message in messages(files) for field in message.field
    }


def describe(message: descriptor_pb2.DescriptorProto, field: Field) -> str:
    label = "optional" if field.proto3_optional else Field.Label.Name(field.label)
    kind = field.type_name or Field.Type.Name(field.type)
    in_oneof = field.HasField("oneof_index") and not field.proto3_optional
    oneof = f" of {message.oneof_decl[field.oneof_index].name}" if in_oneof else ""
    return f"{field.number} {label} {kind}{oneof}"
