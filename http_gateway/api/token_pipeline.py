"""Token classification in the shape of Hugging Face's endpoints, which is that of transformers.pipeline("ner").

`http_gateway.api.table` uses it for POST /, /invocations and /vertex if the model is a token classifier, because
Hugging Face's InferenceClient posts there. /predict_tokens keeps BEI's shape.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import numpy as np

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from http_gateway.api.cost import cost_headers
from http_gateway.api.entities import Aggregation, Entities, PredictTokensBody, placed
from http_gateway.api.inputs import check_count
from http_gateway.api.supported import merge_aliases
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LongList, Request
from http_gateway.web.routing import JsonHandler

OUTSIDE = "O"  # the label of tokens outside of entities


class PipelineParameters(msgspec.Struct):
    """The parameters of huggingface_hub's InferenceClient.token_classification."""

    aggregation_strategy: Aggregation | None = None  # simple when absent, as on Hugging Face's endpoints
    ignore_labels: list[str] | None = None  # ["O"] when absent
    # Overlap of the windows of a long text, in tokens. Windows are not supported: with `stride`, a text that is too
    # long is refused.
    stride: Annotated[int, msgspec.Meta(ge=0)] | None = None


class TokenPipelineBody(PredictTokensBody, kw_only=True):
    """A text or a flat list of texts gets the pipeline's shape, lists of lists get BEI's."""

    parameters: PipelineParameters | None = None


class TokenPipeline(Entities):
    def task(self) -> JsonHandler[TokenPipelineBody]:
        return JsonHandler(msgspec.json.Decoder(TokenPipelineBody), self.classify)

    async def classify(self, body: TokenPipelineBody, request: Request) -> Answer:
        """One list of entities for a text, a list of such lists for several texts."""
        parameters = body.parameters or PipelineParameters()
        if not isinstance(body.inputs, str) and any(isinstance(item, list) for item in body.inputs):
            if parameters != PipelineParameters():
                raise invalid("parameters", "not supported for lists of lists; send a text or a flat list of texts")
            return await self.predict_tokens(body, request)
        if body.raw_scores:
            raise invalid("raw_scores", "entities have probabilities only; use /predict_tokens for logits")
        texts = [text for text, _ in placed(body.inputs)]
        check_count(len(texts), self.inputs_max, "inputs", "texts")
        wishes = {
            "aggregation_strategy": body.aggregation_strategy,
            "parameters.aggregation_strategy": parameters.aggregation_strategy,
        }
        strategy: Aggregation = merge_aliases(wishes) or "simple"
        ignored = frozenset([OUTSIDE] if parameters.ignore_labels is None else parameters.ignore_labels)
        if parameters.stride is not None:
            body.truncate = False
        with RenamedFields({}, is_list=not isinstance(body.inputs, str)), refusing_windows(parameters.stride):
            answer = await self.call_predict_tokens(
                body, texts, request, strategy, with_words=True, with_outside=OUTSIDE not in ignored
            )
        to_rows = tokens_of if strategy == "none" else groups_of

        def entities(result: inference_pb2.Entities) -> LongList:
            return LongList([row for row in to_rows(result) if label_of(row) not in ignored])

        value = entities(answer.results[0]) if isinstance(body.inputs, str) else LongList(answer.results, entities)
        return Answer(value, cost_headers(request, answer.usage, answer.timings))


@contextmanager
def refusing_windows(stride: int | None) -> Iterator[None]:
    """Turns the error for a text that is too long into one that names `stride`, if the caller sent it."""
    try:
        yield
    except HeddleError as error:
        if stride is not None and error.kind is ErrorKind.TOO_LARGE:
            raise invalid("parameters.stride", f"long texts are not split into windows: {error.message}") from None
        raise


def invalid(place: str, why: str) -> HeddleError:
    return HeddleError(ErrorKind.INVALID_INPUT, f"{place}: {why}", field=place.partition(".")[0])


def tokens_of(result: inference_pb2.Entities) -> Iterator[dict[str, Any]]:
    """A row for each token that is not special. `index` counts special tokens too, as in the pipeline."""
    for index, token in enumerate(result.entities):
        if not token.special:
            label, score = best_of(token)
            yield {"entity": label, "score": score, "index": index, **place_of(token)}


def groups_of(result: inference_pb2.Entities) -> Iterator[dict[str, Any]]:
    for group in result.entities:
        label, score = best_of(group)
        yield {"entity_group": label, "score": score, **place_of(group)}


def best_of(entity: inference_pb2.Entity) -> tuple[str, np.float32]:
    """Without raw scores, an entity has exactly one label."""
    ((label, score),) = entity.scores.items()
    return label, np.float32(score)


def place_of(entity: inference_pb2.Entity) -> dict[str, Any]:
    return {"word": entity.word, "start": entity.start_char, "end": entity.end_char}


def label_of(row: dict[str, Any]) -> str:
    label: str = row["entity"] if "entity" in row else row["entity_group"]
    return label
