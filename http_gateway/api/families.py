"""The bodies of errors: one shape per family of clients. Each route names its family.

/openapi.json describes the same structs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from http_gateway.errors import Failure

# TEI's names of errors, by ours. Others keep their own name.
TEI_TYPES = {
    "invalid_input": "Validation",
    "too_large": "Validation",
    "empty_input": "Empty",
    "wrong_task": "Backend",
    "bad_output": "Backend",
    "overloaded": "Overloaded",
    "unavailable": "Unhealthy",
    "mismatch": "Unhealthy",
}

OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 504: "timeout_error"}


class OpenAIErrorDetail(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(msgspec.Struct):
    """OpenAI's clients read `error`; Baseten's and TEI's read the flat fields."""

    error: OpenAIErrorDetail
    message: str
    code: int
    type: str
    detail: str  # the message again: Jina's and Voyage's clients read this field


class TEIError(msgspec.Struct):
    error: str
    error_type: str


class OllamaError(msgspec.Struct):
    error: str


class CohereError(msgspec.Struct):
    message: str
    detail: str  # the message again: Jina's clients read this field


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    error: type[msgspec.Struct]
    to_error: Callable[[Failure], msgspec.Struct]
    over_limit_status: int  # for input over a limit; GatewaySettings.over_limit_status replaces it

    def body(self, failure: Failure) -> bytes:
        """Always JSON, whatever the caller accepts: people read errors without a decoder."""
        return msgspec.json.encode(self.to_error(failure))


def openai_error(failure: Failure) -> OpenAIError:
    """https://platform.openai.com/docs/guides/error-codes"""
    kind = OPENAI_TYPES.get(failure.status, "server_error" if failure.status >= 500 else "invalid_request_error")
    return OpenAIError(
        error=OpenAIErrorDetail(failure.message, kind, failure.param or None, failure.code),
        message=failure.message,
        code=failure.status,
        type=tei_type(failure),
        detail=failure.message,
    )


def tei_error(failure: Failure) -> TEIError:
    return TEIError(failure.message, tei_type(failure))


def cohere_error(failure: Failure) -> CohereError:
    return CohereError(failure.message, failure.message)


def ollama_error(failure: Failure) -> OllamaError:
    return OllamaError(failure.message)


def tei_type(failure: Failure) -> str:
    return TEI_TYPES.get(failure.code) or failure.code.title().replace("_", "")


OPENAI = Family("OpenAI", OpenAIError, openai_error, 400)
TEI = Family("TEI and BEI", TEIError, tei_error, 413)
COHERE = Family("Cohere and Jina", CohereError, cohere_error, 400)
OLLAMA = Family("Ollama", OllamaError, ollama_error, 400)
