"""POST /predict_tokens of BEI: named entities, or a label for every token. Also token classification in the shape of
Hugging Face's endpoints, which is that of transformers.pipeline("ner").

http_gateway.api.routes uses the latter for POST /, /invocations and /vertex if the model is a token classifier, because
Hugging Face's InferenceClient posts there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from http_gateway.api.answers import answer_with_costs, post_with_costs
from http_gateway.api.families import TEI
from http_gateway.api.request_fields import CommonFields, NonEmpty, Text, check_count, merge_aliases
from http_gateway.api.served_models import ModelRoutes, ServedModels
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LazyList, Request
from http_gateway.web.routing import JsonHandler, Route

Aggregation = Literal["none", "simple", "first", "average", "max"]
OUTSIDE = "O"  # the label of tokens outside of entities


class PredictTokensBody(CommonFields, kw_only=True):
    """`inputs` is one text, a list of texts, or a list of lists of texts; all of them are taken one by one."""

    inputs: Text | Annotated[list[Text | list[Text]], NonEmpty]
    raw_scores: bool | None = None
    aggregation_strategy: Aggregation | None = None  # none when absent

    @property
    def inputs_count(self) -> int:
        return len(list_places(self.inputs))


class Entity(msgspec.Struct):
    token: str
    token_id: int
    start: int
    end: int
    results: dict[str, float]


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


EXAMPLE = {
    "inputs": [["Apple is looking at buying U.K. startup for $1 billion"]],
    "aggregation_strategy": "max",
}


class TEIPredictTokens(ModelRoutes):
    def routes(self) -> list[Route]:
        return [
            post_with_costs(
                "/predict_tokens",
                PredictTokensBody,
                self.predict_tokens,
                answer=list[list[Entity]],
                example=EXAMPLE,
                family=TEI,
            )
        ]

    def pipeline_task(self) -> JsonHandler[TokenPipelineBody]:
        return JsonHandler(msgspec.json.Decoder(TokenPipelineBody), self.run_pipeline)

    async def predict_tokens(self, body: PredictTokensBody, request: Request) -> Answer:
        """The entities of each text, or a label for each of its tokens."""
        places = list_places(body.inputs)
        check_count(len(places), self.inputs_max, "inputs", "texts")
        aggregation, raw_scores = body.aggregation_strategy or "none", bool(body.raw_scores)
        texts = [text for text, _ in places]
        with RenamedFields({}, place_of=lambda index: places[index][1]):
            response = await call_predict_tokens(self.models, body, texts, request, aggregation, raw_scores=raw_scores)
        rows = LazyList(response.results, lambda result: LazyList(result.entities, entity_value))
        return answer_with_costs(rows, request, response)

    async def run_pipeline(self, body: TokenPipelineBody, request: Request) -> Answer:
        """One list of entities for a text, a list of such lists for several texts."""
        parameters = body.parameters or PipelineParameters()
        if not isinstance(body.inputs, str) and any(isinstance(item, list) for item in body.inputs):
            if parameters != PipelineParameters():
                raise invalid("parameters", "not supported for lists of lists; send a text or a flat list of texts")
            return await self.predict_tokens(body, request)
        if body.raw_scores:
            raise invalid("raw_scores", "entities have probabilities only; use /predict_tokens for logits")
        texts = [text for text, _ in list_places(body.inputs)]
        check_count(len(texts), self.inputs_max, "inputs", "texts")
        aliases = {
            "aggregation_strategy": body.aggregation_strategy,
            "parameters.aggregation_strategy": parameters.aggregation_strategy,
        }
        aggregation: Aggregation = merge_aliases(aliases) or "simple"
        ignored = frozenset([OUTSIDE] if parameters.ignore_labels is None else parameters.ignore_labels)
        if parameters.stride is not None:
            body.truncate = False
        with RenamedFields({}, is_list=not isinstance(body.inputs, str)), refuse_windows(parameters.stride):
            response = await call_predict_tokens(
                self.models, body, texts, request, aggregation, with_words=True, with_outside=OUTSIDE not in ignored
            )
        label_key, build_rows = (
            ("entity", pipeline_tokens) if aggregation == "none" else ("entity_group", pipeline_groups)
        )

        def entities(result: inference_pb2.Entities) -> LazyList:
            return LazyList([row for row in build_rows(result) if row[label_key] not in ignored])

        value = entities(response.results[0]) if isinstance(body.inputs, str) else LazyList(response.results, entities)
        return answer_with_costs(value, request, response)


async def call_predict_tokens(
    models: ServedModels,
    body: CommonFields,
    texts: Sequence[str],
    request: Request,
    aggregation: Aggregation,
    *,
    raw_scores: bool = False,
    with_words: bool = False,
    with_outside: bool = False,
) -> inference_pb2.PredictTokensResponse:
    call = inference_pb2.PredictTokensRequest(
        inputs=texts,
        raw_scores=raw_scores,
        aggregation=f"AGGREGATION_{aggregation.upper()}",
        with_words=with_words,
        with_outside=with_outside,
    )
    body.set_truncation(call)
    return await models.find(body.model).client.predict_tokens(call, request.options())


def list_places(inputs: str | list[str | list[str]]) -> list[tuple[str, str]]:
    """Each text, and its place in the request; "" for a text that is not in a list."""
    if isinstance(inputs, str):
        return [(inputs, "")]
    found: list[tuple[str, str]] = []
    for index, item in enumerate(inputs):
        if isinstance(item, str):
            found.append((item, f"inputs[{index}]"))
        else:
            found.extend((text, f"inputs[{index}][{inner}]") for inner, text in enumerate(item))
    return found


def entity_value(entity: inference_pb2.Entity) -> dict[str, Any]:
    """The best label comes first; equal ones are sorted by name."""
    scores = sorted(entity.scores.items(), key=lambda score: (-score[1], score[0]))
    return {
        "token": entity.text,
        "token_id": entity.token_id,
        "start": entity.start_char,
        "end": entity.end_char,
        "results": {label: np.float32(score) for label, score in scores},
    }


def pipeline_tokens(result: inference_pb2.Entities) -> Iterator[dict[str, Any]]:
    """A row for each token that is not special. `index` counts special tokens too, as in the pipeline."""
    for index, token in enumerate(result.entities):
        if not token.special:
            label, score = only_score(token)
            yield {"entity": label, "score": score, "index": index, **word_and_span(token)}


def pipeline_groups(result: inference_pb2.Entities) -> Iterator[dict[str, Any]]:
    for group in result.entities:
        label, score = only_score(group)
        yield {"entity_group": label, "score": score, **word_and_span(group)}


def only_score(entity: inference_pb2.Entity) -> tuple[str, np.float32]:
    """Without raw scores, an entity has exactly one label."""
    ((label, score),) = entity.scores.items()
    return label, np.float32(score)


def word_and_span(entity: inference_pb2.Entity) -> dict[str, Any]:
    return {"word": entity.word, "start": entity.start_char, "end": entity.end_char}


@contextmanager
def refuse_windows(stride: int | None) -> Iterator[None]:
    """Turns the error for a text that is too long into one that names `stride`, if the caller sent it."""
    try:
        yield
    except HeddleError as error:
        if stride is not None and error.kind is ErrorKind.TOO_LARGE:
            raise invalid("parameters.stride", f"long texts are not split into windows: {error.message}") from None
        raise


def invalid(place: str, why: str) -> HeddleError:
    return HeddleError(ErrorKind.INVALID_INPUT, f"{place}: {why}", field=place.partition(".")[0])
