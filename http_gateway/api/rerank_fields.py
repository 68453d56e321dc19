"""The request fields of the rerank routes, under the names of TEI, Cohere, Jina, Voyage, vLLM and Infinity, and the
text of a document that is an object."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from http_gateway.api.request_fields import CommonFields, NonEmpty, Text, merge_aliases
from http_gateway.web.serialization import can_serialize
from http_gateway.web.supported_values import only

Document = str | dict[str, Any]
Documents = Annotated[list[Document], NonEmpty]
Count = Annotated[int, msgspec.Meta(ge=0)]

# Fields of vLLM's /score too.
DocumentTokensMax = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]  # 0 and absent: as many as fit
QueryTokensMax = Annotated[int | None, only(0, instead="truncate the query yourself")]
ChatTemplateFields = Annotated[dict[str, Any] | None, only({}, instead="the model's prompt is fixed")]


class RelevantSpans(msgspec.Struct):
    """Relevant spans are not supported."""

    mode: Literal["disabled"]


class RankFields(CommonFields, kw_only=True):
    """The fields of all rerank routes. Unknown fields are ignored."""

    query: Text
    top_n: Count | None = None  # all when 0 or absent
    top_k: Count | None = None  # Voyage's name for top_n
    return_documents: Annotated[
        bool | None,
        msgspec.Meta(description="False when absent, as at Cohere; Jina's own API defaults to true"),
    ] = None
    rank_fields: list[str] | None = None  # fields of object documents to rank; `text` when absent
    raw_scores: bool | None = None
    use_activation: bool | None = None  # vLLM's; false is the same as raw_scores
    instruction: str | None = None  # task description for models with an instruction in their prompt
    max_tokens_per_doc: DocumentTokensMax | None = None
    max_tokens_per_query: QueryTokensMax = None
    max_chunks_per_doc: Annotated[
        int | None, only(1, instead="a document is scored once, by its beginning; send long ones in parts")
    ] = None
    relevant_spans: RelevantSpans | None = None
    return_embeddings: Annotated[bool | None, only(False, instead="/v1/embeddings gives vectors")] = None
    chat_template_kwargs: ChatTemplateFields = None
    mm_processor_kwargs: Annotated[dict[str, Any] | None, only({}, instead="only texts are ranked")] = None

    @property
    def is_from_voyage(self) -> bool:
        """Whether the body has a field that only Voyage's clients send; they read the results from `data`."""
        return self.top_k is not None or self.is_truncated is not None

    @property
    def returns_documents(self) -> bool:
        return bool(self.return_documents)

    @property
    def results_max(self) -> int | None:
        return merge_aliases({"top_n": self.top_n, "top_k": self.top_k}) or None

    @property
    def wants_raw_scores(self) -> bool:
        activation = None if self.use_activation is None else not self.use_activation
        return bool(merge_aliases({"raw_scores": self.raw_scores, "use_activation": activation}))

    @property
    def truncation(self) -> inference_pb2.Truncation:
        """A request with max_tokens_per_doc allows truncation unless it says otherwise."""
        truncation = super().truncation
        return inference_pb2.TRUNCATION_ALLOW if not truncation and self.document_tokens_max else truncation

    @property
    def document_tokens_max(self) -> int:
        return self.max_tokens_per_doc or 0


def read_documents(
    documents: Sequence[Document], rank_fields: Sequence[str] | None, *, are_returned: bool
) -> list[str]:
    """The text to rank for each document. Raises INVALID_INPUT for an object that has none or cannot be returned."""
    texts = []
    for index, document in enumerate(documents):
        if isinstance(document, str):
            texts.append(document)
            continue
        texts.append(read_text(document, rank_fields, f"documents[{index}]"))
        if are_returned and not can_serialize(document):
            raise invalid(f"documents[{index}] cannot be returned: it is nested too deeply or has too large a number")
    return texts


def read_text(document: dict[str, Any], rank_fields: Sequence[str] | None, place: str) -> str:
    """The values of Cohere's `rank_fields`, joined by newlines."""
    if not rank_fields:
        if "text" not in document:
            raise invalid(f"{place}.text is required unless rank_fields names other fields")
        text = document["text"]
        if not isinstance(text, str):
            raise invalid(f"{place}.text must be a string")
        return text
    found = [document[name] for name in rank_fields if document.get(name) is not None]
    if not found:
        raise invalid(f"{place} has none of the rank_fields: {', '.join(rank_fields)}")
    return "\n".join(value if isinstance(value, str) else msgspec.json.encode(value).decode() for value in found)


def document_object(document: Document) -> dict[str, Any]:
    """The form that Cohere's and Jina's clients read."""
    return {"text": document} if isinstance(document, str) else document


def invalid(message: str) -> HeddleError:
    return HeddleError(ErrorKind.INVALID_INPUT, message, field="documents")
