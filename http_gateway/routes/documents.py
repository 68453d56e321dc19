"""What callers of the rerank routes send, in the words of TEI, Cohere, Jina, Voyage, vLLM and Infinity; and the text of
a document that may be an object. Used by http_gateway.routes.rerank.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from http_gateway.routes.inputs import TEIBody
from http_gateway.routes.schemas import Some, Text
from http_gateway.supported import agreed, only
from http_gateway.writing import is_writable

Document = str | dict[str, Any]
Documents = Annotated[list[Document], Some]
Count = Annotated[int, msgspec.Meta(ge=0)]

# vLLM's callers of /score send these too.
DocumentTokensMax = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]  # 0 and absent: as many as fit
QueryTokensMax = Annotated[int | None, only(0, instead="cut the query yourself")]
ChatTemplateFields = Annotated[dict[str, Any] | None, only({}, instead="the model's prompt is fixed")]


class RelevantSpans(msgspec.Struct):
    """Which spans of a document were relevant is not known here."""

    mode: Literal["disabled"]


class RankFields(TEIBody, kw_only=True):
    """What bodies of all rerank routes may have. Other unknown fields are ignored."""

    query: Text
    top_n: Count | None = None  # 0 and absent: all
    top_k: Count | None = None  # Voyage's
    return_documents: Annotated[
        bool | None,
        msgspec.Meta(description="False when absent, as for Cohere's clients; in Jina's own API it is true"),
    ] = None
    rank_fields: list[str] | None = None  # of documents that are objects; `text` when absent
    raw_scores: bool | None = None
    use_activation: bool | None = None  # vLLM's: false is the same as `raw_scores`
    instruction: str | None = None  # what the query is after, for models that are told in their prompt
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
    def is_voyages(self) -> bool:
        """Whether it has a field that only Voyage's clients send, who read the results as `data`."""
        return self.top_k is not None or self.is_truncated is not None

    @property
    def returns_documents(self) -> bool:
        return bool(self.return_documents)

    @property
    def results_max(self) -> int | None:
        return agreed({"top_n": self.top_n, "top_k": self.top_k}) or None

    @property
    def wants_raw_scores(self) -> bool:
        activation = None if self.use_activation is None else not self.use_activation
        return bool(agreed({"raw_scores": self.raw_scores, "use_activation": activation}))

    @property
    def truncation(self) -> inference_pb2.Truncation:
        """Who says to how much a document is to be cut has said that it may be."""
        said = super().truncation
        return inference_pb2.TRUNCATION_ALLOW if not said and self.document_tokens_max else said

    @property
    def document_tokens_max(self) -> int:
        return self.max_tokens_per_doc or 0


def texts_of(documents: Sequence[Document], rank_fields: Sequence[str] | None, *, are_returned: bool) -> list[str]:
    """What is ranked of each. Raises INVALID_INPUT for an object without it, and for one that cannot be returned."""
    texts = []
    for index, document in enumerate(documents):
        if isinstance(document, str):
            texts.append(document)
            continue
        texts.append(text_of(document, rank_fields, f"documents[{index}]"))
        if are_returned and not is_writable(document):
            raise refused(f"documents[{index}] cannot be returned: it is nested too deeply, or has too large a number")
    return texts


def text_of(document: dict[str, Any], rank_fields: Sequence[str] | None, place: str) -> str:
    """Cohere's `rank_fields` are ranked one after the other, each on a line of its own."""
    if not rank_fields:
        if "text" not in document:
            raise refused(f"{place}.text is required, where rank_fields name no other fields")
        text = document["text"]
        if not isinstance(text, str):
            raise refused(f"{place}.text must be a text")
        return text
    found = [document[name] for name in rank_fields if document.get(name) is not None]
    if not found:
        raise refused(f"{place} has none of the rank_fields: {', '.join(rank_fields)}")
    return "\n".join(value if isinstance(value, str) else msgspec.json.encode(value).decode() for value in found)


def returned(document: Document) -> dict[str, Any]:
    """As Cohere's and Jina's clients read it: an object as it came, a text inside one."""
    return {"text": document} if isinstance(document, str) else document


def refused(message: str) -> HeddleError:
    return HeddleError(ErrorKind.INVALID_INPUT, message, field="documents")
