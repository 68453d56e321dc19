"""Who may call: the key in the Authorization header, as OpenAI's clients (Bearer) and Baseten's (Api-Key) send it."""

import hmac
from collections.abc import Sequence

from heddle.rpc.errors import ErrorKind, HeddleError
from http_gateway.message import Headers

SCHEMES = ("bearer", "api-key")


class ApiKeys:
    def __init__(self, keys: Sequence[str]) -> None:
        """Without keys everybody may call."""
        self._keys = [key.encode() for key in keys]

    def check(self, headers: Headers) -> None:
        """Raises UNAUTHENTICATED."""
        if not self._keys:
            return
        scheme, _, key = (headers.get("authorization") or "").partition(" ")
        if not key:
            raise unauthenticated("a key is required: Authorization: Bearer KEY")
        if scheme.lower() not in SCHEMES or not self._is_known(key.strip().encode()):
            raise unauthenticated("the key is not valid here")

    def _is_known(self, key: bytes) -> bool:
        """In a time that tells nothing of how much of the key is right."""
        return any(hmac.compare_digest(key, known) for known in self._keys)


def unauthenticated(message: str) -> HeddleError:
    return HeddleError(ErrorKind.UNAUTHENTICATED, message)
