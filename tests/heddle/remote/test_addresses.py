"""Addresses are parsed, and their secrets are never shown."""

import pytest

from heddle.checkpoint.json_files import CheckpointError
from heddle.remote.addresses import is_address, parse_address

AZURE = {"account_name": "acme"}


@pytest.mark.parametrize(
    ("address", "store", "location", "options"),
    [
        ("s3://bucket/models/m/", "s3", "bucket/models/m", {}),
        ("s3://bucket", "s3", "bucket", {}),
        ("gs://bucket/m", "gcs", "bucket/m", {}),
        ("az://container/m", "azure", "container/m", {}),
        ("abfs://container/m", "azure", "container/m", {}),
        ("abfss://container@acme.dfs.core.windows.net/a/m", "azure", "container/a/m", AZURE),
        ("azure://acme/container/a/m", "azure", "container/a/m", AZURE),
        ("https://acme.blob.core.windows.net/container/m", "azure", "container/m", AZURE),
        (
            "https://acme.blob.core.windows.net/container/m?sv=1&sig=abc",
            "azure",
            "container/m",
            {**AZURE, "sas_token": "sv=1&sig=abc"},
        ),
        (
            "https://acme.blob.core.chinacloudapi.cn/container/m",
            "azure",
            "container/m",
            {**AZURE, "account_host": "acme.blob.core.chinacloudapi.cn"},
        ),
        ("https://host/m.tar.gz?sig=abc", "web", "https://host/m.tar.gz?sig=abc", {}),
        ("HTTPS://host", "web", "https://host/", {}),
    ],
)
def test_an_address_names_a_store_and_a_place(address: str, store: str, location: str, options: dict[str, str]) -> None:
    parsed = parse_address(address)
    assert (parsed.store, parsed.location, dict(parsed.options)) == (store, location, options)


@pytest.mark.parametrize(
    "address",
    [
        "ftp://me:secret@host/m",
        "s3://",
        "s3:///m",
        "gs://bucket/../m",
        "az://",
        "azure://acme",
        "https:///m?sig=secret",
        "https://me:secret@[::1/m",
        "s3://me:secret@bucket/m",
        "abfs://me:secret@elsewhere.net/m",
    ],
)
def test_other_addresses_are_refused_without_their_secrets(address: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_address(address)
    assert "secret" not in str(caught.value)


def test_folders_and_hub_names_are_no_addresses() -> None:
    assert not any(map(is_address, ["BAAI/bge-m3", "./m", "/models/m", "C:/m", "m", "a/b/c"]))


def test_the_same_place_has_one_folder_in_the_cache() -> None:
    same = ["https://host/m.tar?sig=1", "https://host/m.tar?sig=2", "https://me:secret@host/m.tar"]
    assert len({parse_address(address).key for address in same}) == 1
    assert parse_address("s3://bucket/m").key == parse_address("s3://bucket/m/").key
    assert parse_address("s3://bucket/m").key != parse_address("s3://other/m").key
    assert all("secret" not in parse_address(address).shown for address in same)


@pytest.mark.parametrize(
    ("address", "name"), [("s3://b/m.v2", "m.v2"), ("https://h/a/m.tar.gz", "m"), ("gs://b", "b"), ("https://h", "h")]
)
def test_the_last_part_is_the_name(address: str, name: str) -> None:
    assert parse_address(address).name == name
