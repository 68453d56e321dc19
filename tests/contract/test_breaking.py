"""The contract grows, and never breaks: what the previous version says still has the same meaning."""

from collections.abc import Callable

import pytest
from google.protobuf import descriptor_pb2

from tests.contract.breaking import breaking_changes
from tests.contract.versions import current_files, next_files, previous_files


def test_this_version_breaks_nothing_of_the_previous_one() -> None:
    assert breaking_changes(previous_files(), current_files()) == []


def test_additions_break_nothing() -> None:
    assert breaking_changes(current_files(), next_files()) == []
    assert breaking_changes(next_files(), current_files())


def message(files: descriptor_pb2.FileDescriptorSet, name: str) -> descriptor_pb2.DescriptorProto:
    return next(one for file in files.file for one in file.message_type if one.name == name)


def rename_field(files: descriptor_pb2.FileDescriptorSet) -> None:
    message(files, "ItemContext").field[0].name = "deadline"


def renumber_field(files: descriptor_pb2.FileDescriptorSet) -> None:
    message(files, "ItemContext").field[0].number = 99


def retype_field(files: descriptor_pb2.FileDescriptorSet) -> None:
    message(files, "ItemContext").field[0].type = descriptor_pb2.FieldDescriptorProto.TYPE_STRING


def remove_field(files: descriptor_pb2.FileDescriptorSet) -> None:
    del message(files, "ItemContext").field[0]


def leave_oneof(files: descriptor_pb2.FileDescriptorSet) -> None:
    message(files, "InferenceItem").field[2].ClearField("oneof_index")


def remove_rpc(files: descriptor_pb2.FileDescriptorSet) -> None:
    del next(file for file in files.file if file.service).service[0].method[0]


def stop_streaming(files: descriptor_pb2.FileDescriptorSet) -> None:
    methods = next(file for file in files.file if file.service).service[0].method
    next(method for method in methods if method.server_streaming).server_streaming = False


def remove_enum_value(files: descriptor_pb2.FileDescriptorSet) -> None:
    del next(file for file in files.file if file.enum_type).enum_type[0].value[-1]


@pytest.mark.parametrize(
    "change",
    [
        *(rename_field, renumber_field, retype_field, remove_field, leave_oneof),
        *(remove_rpc, stop_streaming, remove_enum_value),
    ],
)
def test_every_kind_of_break_is_found(change: Callable[[descriptor_pb2.FileDescriptorSet], None]) -> None:
    changed = current_files()
    change(changed)
    assert breaking_changes(current_files(), changed)
