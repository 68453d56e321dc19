"""Operators see one line for each error of the storage libraries."""

import pytest

from heddle.remote.addresses import hide_secrets, parse_store_address
from heddle.remote.errors import Reason, as_store_error


class ClientResponseError(Exception):
    status = 403


class ClientConnectorError(Exception):
    host, port = "example.com", 443


class DNSError(ClientConnectorError):
    """Libraries add classes below those that are known by name."""


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (OSError("Forbidden: https://storage.googleapis.com/b/models\nno access"), "refused", "with these credentials"),
        (ClientResponseError("no"), "refused", "may not be read with these credentials: check GOOGLE_APPLICATION"),
        (FileNotFoundError("m"), "missing", "there is nothing at gs://bucket/m"),
        (ConnectionRefusedError(), "unreachable", "gs://bucket/m cannot be reached: check the network"),
        (
            DNSError(),
            "unreachable",
            "cannot be reached: check the network and the endpoint example.com:443",
        ),
        (RuntimeError("a\nb https://me:secret@h/x?sig=secret c"), "failed", "cannot be read: a b https://h/x c"),
    ],
)
def test_an_error_is_one_line_without_secrets(error: Exception, reason: Reason, words: str) -> None:
    told = as_store_error(error, parse_store_address("gs://bucket/m"))
    assert (told.reason, words in str(told)) == (reason, True), told
    assert "\n" not in str(told)
    assert "secret" not in str(told)


def test_an_address_is_shown_without_its_secrets() -> None:
    assert hide_secrets("sftp://me:secret@host/builds?key=secret") == "sftp://host/builds"
    assert parse_store_address("sftp://me:secret@host/builds").shown == "sftp://host/builds"
    assert parse_store_address("/builds").shown == "/builds"
