"""Says in one line why a model could not be downloaded from the hub, and what to do about it. Called by `hub`.

The messages of huggingface_hub have several lines, addresses of its API, and advice for programmers.
"""

import errno

from heddle.remote.disk_errors import chain, describe_disk_error
from heddle.remote.errors import SECRET_PLACES, on_one_line

CONNECTION_ERRORS = ("ConnectError", "ConnectTimeout", "ConnectionError", "Timeout", "ReadTimeout", "ProxyError")


def describe(error: BaseException, name: str, revision: str | None, *, is_cached: bool = False) -> str:
    from huggingface_hub import constants, errors, get_token

    if revision and find(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision} on the hub"
    if isinstance(error, errors.HFValidationError):
        return f"{name} is neither a folder nor a name on the hub, which is of the form owner/name"
    if find(error, errors.GatedRepoError):
        return describe_gated(name, has_token=bool(get_token()))
    if is_wrong_token(error):
        return f"the hub does not accept the token for {name}: {token_place()} is wrong, or the token has expired"
    if find(error, errors.RepositoryNotFoundError) or find_status(error) in (401, 403):
        return describe_missing(name, has_token=bool(get_token()))
    if constants.HF_HUB_OFFLINE:
        return f"{name} is not completely in the hub's cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set"
    if line := describe_disk_error(error, name, constants.HF_HUB_CACHE, "HF_HOME"):
        return line
    return describe_network(error, name, is_cached) or f"{name} could not be downloaded: {on_one_line(error)}"


def token_place() -> str:
    return SECRET_PLACES.get().get("hub") or "HF_TOKEN"


def describe_gated(name: str, *, has_token: bool) -> str:
    from huggingface_hub import constants

    page = f"{constants.ENDPOINT}/{name}"
    if has_token:
        whose = f"the account of the token in {token_place()} may not read it"
        return f"{name} is gated, and {whose}: ask for access at {page}"
    return f"{name} is gated: ask for access at {page}, and set {token_place()} to a token of that account"


def describe_missing(name: str, *, has_token: bool) -> str:
    if has_token:
        missing = (
            f"the hub has no model {name} that the token in {token_place()} may read, and there is no such folder here"
        )
        return f"{missing}: check the name and the token"
    missing = f"the hub has no public model {name}, and there is no such folder here"
    return f"{missing}: check the name; if the model is private, set {token_place()} to a token"


def describe_network(error: BaseException, name: str, is_cached: bool) -> str | None:
    from huggingface_hub import constants

    status = find_status(error)
    if status == 429:
        return f"the hub refused a request for {name} after too many requests (429): try later, or set {token_place()}"
    if status is not None:
        return f"the hub failed to answer a request for {name} ({status}): try later"
    kinds = {type(each).__name__ for each in chain(error)}
    if kinds.intersection(CONNECTION_ERRORS) or find_errno(error) in (errno.ECONNREFUSED, errno.ENETUNREACH):
        line = f"the hub at {constants.ENDPOINT} cannot be reached"
        return line if is_cached else f"{name} is not in the cache, and {line}: check the network"
    return None


def is_wrong_token(error: BaseException) -> bool:
    responses = (getattr(each, "response", None) for each in chain(error))
    return any("Invalid credentials" in str(each.headers.get("X-Error-Message", "")) for each in responses if each)


def find(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    return next((each for each in chain(error) if isinstance(each, kind)), None)


def find_status(error: BaseException) -> int | None:
    """Returns the HTTP status of the answer that caused the error, if there is one."""
    responses = (getattr(each, "response", None) for each in chain(error))
    return next((int(each.status_code) for each in responses if each is not None), None)


def find_errno(error: BaseException) -> int | None:
    return next((each.errno for each in chain(error) if isinstance(each, OSError) and each.errno), None)
