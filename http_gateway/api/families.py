"""The bodies of errors: one shape for each family of clients. Each route names its family.

/openapi.json describes the same structs.
"""

import msgspec

from http_gateway.errors import Failure
from http_gateway.web.routing import Family

# TEI's names for our errors. Errors that TEI does not have keep their own name.
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


class CohereError(msgspec.Struct):
    message: str
    detail: str  # the message again: Jina's clients read this field


class OllamaError(msgspec.Struct):
    error: str


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


def tei_type(failure: Failure) -> str:
    return TEI_TYPES.get(failure.code) or failure.code.title().replace("_", "")


OPENAI = Family("OpenAI", OpenAIError, openai_error, over_limit_status=400)
TEI = Family("TEI and BEI", TEIError, lambda failure: TEIError(failure.message, tei_type(failure)), 413)
COHERE = Family("Cohere and Jina", CohereError, lambda failure: CohereError(failure.message, failure.message), 400)
OLLAMA = Family("Ollama", OllamaError, lambda failure: OllamaError(failure.message), over_limit_status=400)
