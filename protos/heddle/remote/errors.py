"""Says in one line what went wrong at an address. fsspec uses many libraries, and each has its own errors.

Called by `filesystems` and `web`; callers of this package catch StoreError.
"""

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from heddle.checkpoint.json_files import CheckpointError
from heddle.remote.addresses import Address, Store, hide_secrets
from heddle.remote.disk_errors import FULL, chain

# missing: nothing is there. refused: credentials, a library or a setting are missing or wrong. unreachable: nothing
# answered. changed: the content has changed since the files were listed. wrong: the content does not have its hash.
# failed: anything else.
Reason = Literal["missing", "refused", "unreachable", "changed", "wrong", "failed"]

# Another try may succeed.
TRANSIENT: tuple[Reason, ...] = ("unreachable", "failed")

# Where the secret of a config is, or should be, by kind of store; "hub" is the Hugging Face Hub. Set once, when the
# config has been read.
SECRET_PLACES: ContextVar[Mapping[str, str]] = ContextVar("secret_places", default=MappingProxyType({}))

CREDENTIALS: dict[Store, str] = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS, to the file of a service account",
    "azure": "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING",
}

# By class name, because the libraries that define them may not be installed.
NO_CREDENTIALS = frozenset({"ClientAuthenticationError", "CredentialUnavailableError", "NoCredentialsError"})
WRONG_CREDENTIALS = frozenset(
    {
        *("CredentialRetrievalError", "DefaultCredentialsError", "PartialCredentialsError", "PermissionError"),
        *("ProfileNotFound", "RefreshError", "TokenRetrievalError", *NO_CREDENTIALS),
    }
)
NO_CONNECTION = frozenset(
    {
        *("ClientConnectorError", "ClientConnectionError", "ClientPayloadError", "ConnectTimeoutError"),
        *("ConnectionClosedError", "ConnectionRefusedError", "EndpointConnectionError", "FSTimeoutError"),
        *("HTTPClientError", "IncompleteReadError", "ReadTimeoutError", "ServerDisconnectedError"),
        *("ServerTimeoutError", "ServiceRequestError", "ServiceResponseError", "TimeoutError", "TransportError"),
    }
)


class StoreError(CheckpointError):
    """One line for the operator."""

    def __init__(self, line: str, reason: Reason = "failed") -> None:
        super().__init__(line)
        self.reason = reason


def as_store_error(
    error: BaseException, address: Address, *, doing: str = "read", anonymous: bool = False
) -> StoreError:
    """`doing` is "read" or "written"."""
    reason = find_reason(error)
    variables = SECRET_PLACES.get().get(address.store) or CREDENTIALS.get(address.store)
    if reason == "missing" and doing == "written":
        line = f"{address.shown} cannot be written: there is no such bucket"
    elif reason == "missing":
        line = f"there is nothing at {address.shown}, or nothing that these credentials may see"
    elif reason == "refused" and variables and (anonymous or lacks_credentials(error)):
        line = f"{address.shown} is not public, and there are no credentials: set {variables}"
    elif reason == "refused" and variables:
        line = f"{address.shown} may not be {doing} with these credentials: check {variables}"
    elif reason == "unreachable":
        line = f"{address.shown} cannot be reached: check the network{describe_endpoint(error)}"
    elif getattr(error, "errno", None) in FULL:
        line = f"{address.shown} is full: free some space there"
    else:
        line = f"{address.shown} cannot be {doing}: {on_one_line(error)}"
    return StoreError(line, reason)


def describe_endpoint(error: BaseException) -> str:
    """Returns the end of a sentence with the server that did not answer, or "" if the library does not name it."""
    for each in chain(error):
        stated = getattr(each, "kwargs", None)  # of botocore
        if isinstance(stated, dict) and stated.get("endpoint_url"):
            parts = urlsplit(str(stated["endpoint_url"]))
            return f" and the endpoint {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if isinstance(host := getattr(each, "host", None), str):  # of aiohttp
            return f" and the endpoint {host}:{getattr(each, 'port', '')}"
    return ""


def on_one_line(error: BaseException) -> str:
    return hide_secrets(" ".join(str(error).split()) or type(error).__name__)


def find_reason(error: BaseException) -> Reason:
    names = {kind.__name__ for each in chain(error) for kind in type(each).__mro__}
    statuses = set(find_statuses(error))
    if "FileNotFoundError" in names or statuses & {404}:
        return "missing"
    # gcsfs has no class of its own for this.
    is_forbidden = any(isinstance(each, OSError) and str(each).startswith("Forbidden:") for each in chain(error))
    if names & WRONG_CREDENTIALS or statuses & {401, 403} or is_forbidden:
        return "refused"
    return "unreachable" if names & NO_CONNECTION else "failed"


def lacks_credentials(error: BaseException) -> bool:
    """Azure raises the same error if its server refuses the credentials, but then with a status."""
    return any(
        type(each).__name__ in NO_CREDENTIALS and getattr(each, "status_code", None) is None for each in chain(error)
    )


def find_statuses(error: BaseException) -> Iterator[int]:
    for each in chain(error):
        for name in ("status", "status_code", "code"):
            status = getattr(each, name, None)
            if isinstance(status, int):
                yield status
