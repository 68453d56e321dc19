"""A request has one answer or one error, for any division into submissions and any order of their answers."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from heddle.checkpoint import Checkpoint
from heddle.rpc.deadlines import NEVER
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.stream import Cancel, LargeOutcome, Reply
from heddle.v1 import engine_pb2, model_pb2, tensor_pb2
from heddle.v1 import inference_pb2 as pb
from tests.kinds import write_classifier, write_reranker, write_sparse_embedder, write_token_classifier
from tests.small_models.m3 import write_m3
from tests.tokenizer_svc.fake_engine import FakeEngine
from tests.tokenizer_svc.tei.served_model import write_embedder
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.servicer import InferenceServicer
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.text.sequences import TokenSequence
from tokenizer_svc.text.tokenizer import Tokenizer

RNG = random.Random(0)
WORDS = ["the", "loom", "weaves", "blue", "cloth", "with", "a", "red", "thread"]
TEXTS = [" ".join(RNG.choices(WORDS, k=RNG.choice((1, 3, 3, 3, 40, 400)))) for _ in range(75)]
INPUTS = [pb.Input(text=text) for text in TEXTS]
MIXED = [*INPUTS[:20], pb.Input(token_ids=b"\x65\0\0\0\x66\0\0\0"), *INPUTS[20:]]
HALVES = tensor_pb2.DATA_TYPE_FLOAT16
KINDS = [model_pb2.EMBEDDING_KIND_COLBERT, model_pb2.EMBEDDING_KIND_SPARSE, model_pb2.EMBEDDING_KIND_DENSE]


def m3_folder(folder: Path) -> Path:
    write_m3(folder)
    return folder


REQUESTS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "embed": (write_embedder, {"embed": pb.EmbedRequest(inputs=INPUTS)}),
    "mixed": (write_embedder, {"embed": pb.EmbedRequest(inputs=MIXED, dimensions=16, data_type=HALVES)}),
    "tokens": (write_embedder, {"embed_tokens": pb.EmbedTokensRequest(inputs=INPUTS, data_type=HALVES)}),
    "similarity": (write_embedder, {"similarity": pb.SimilarityRequest(source="a loom", sentences=TEXTS)}),
    "cosine": (write_embedder, {"rerank": pb.RerankRequest(query="a loom", documents=[*TEXTS, ""])}),
    "sparse": (write_sparse_embedder, {"embed_sparse": pb.EmbedSparseRequest(inputs=INPUTS)}),
    "joint": (m3_folder, {"embed": pb.EmbedRequest(inputs=INPUTS, embedding_kinds=KINDS)}),
    "rerank": (write_reranker, {"rerank": pb.RerankRequest(query="a loom", documents=[*TEXTS, ""])}),
    "predict": (write_classifier, {"predict": pb.PredictRequest(inputs=[pb.TextOrPair(text=text) for text in TEXTS])}),
    "pairs": (
        write_classifier,
        {"predict": pb.PredictRequest(inputs=[pb.TextOrPair(text=text, pair=text[:9]) for text in TEXTS])},
    ),
    "labels": (write_token_classifier, {"predict_tokens": pb.PredictTokensRequest(inputs=TEXTS)}),
    "entities": (
        write_token_classifier,
        {"predict_tokens": pb.PredictTokensRequest(inputs=TEXTS, aggregation=pb.AGGREGATION_SIMPLE)},
    ),
}

Answer = pb.InferenceOutcome | HeddleError
Ask = Callable[..., Awaitable[Answer]]


class Shuffling(FakeEngine):
    """Answers in any order. Knows how much was still to be tokenized when each submission came."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder: Encoder | None = None
        self.waiting_bytes: list[int] = []

    def submit(self, item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
        assert self.encoder is not None
        self.waiting_bytes.append(self.encoder.waiting_bytes)
        self.delay_s = random.uniform(0, 0.01)
        return super().submit(item, deadline, reply)


@cache
def loaded(folder: Path) -> tuple[Checkpoint, Tokenizer]:
    checkpoint = Checkpoint.read(folder)
    return checkpoint, Tokenizer.load(checkpoint)


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    async def asking(name: str, engine: Shuffling, slice_bytes_max: int = 1 << 20, **settings: Any) -> Answer:
        write, request = REQUESTS[name]
        folder = tmp_path / name
        checkpoint, tokenizer = loaded(folder if folder.exists() else write(folder))
        engine.dimension = len(checkpoint.labels) or checkpoint.dimension
        engine.encoder = Encoder(tokenizer, slice_bytes_max=slice_bytes_max)
        own = TokenizerSettings(engines=("unix:/none",), rerank_by_cosine=True, **settings)
        servicer = InferenceServicer(checkpoint, tokenizer, engine.encoder, engine, own)  # type: ignore[arg-type]
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        servicer.submit(
            pb.InferenceItem(**request),
            NEVER,
            lambda answer: answered.set_result(answer.outcome if isinstance(answer, LargeOutcome) else answer),
        )
        try:
            return await asyncio.wait_for(answered, 10)
        finally:
            await engine.encoder.close()

    return asking


def without_timings(answer: Answer) -> Any:
    assert isinstance(answer, pb.InferenceOutcome)
    response = getattr(answer, str(answer.WhichOneof("result")))
    response.ClearField("timings")
    return answer


@pytest.mark.parametrize("name", REQUESTS)
async def test_any_division_gives_the_answer_of_single_sequences(ask: Ask, name: str) -> None:
    one_by_one = Shuffling()
    expected = without_timings(await ask(name, one_by_one, submission_sequences_max=1))
    assert len(one_by_one.submissions) == len(one_by_one.sequences)
    for sequences_max, tokens_max in ((3, 12), (32, 4096), (2048, 1 << 20)):
        engine, divided = Shuffling(), {"submission_sequences_max": sequences_max, "submission_tokens_max": tokens_max}
        assert without_timings(await ask(name, engine, **divided)) == expected
        assert engine.sequences == one_by_one.sequences
        for item in engine.submissions:
            tokens, count = len(item.sequences.token_ids) // 4, len(item.sequences.lengths) // 4
            assert count == 1 or (count <= sequences_max and tokens <= tokens_max)


async def test_short_texts_need_few_submissions(ask: Ask) -> None:
    engine = Shuffling()
    await ask("embed", engine, submission_tokens_max=1 << 20)
    assert len(engine.submissions) == 3
    assert [len(item.sequences.lengths) // 4 for item in engine.submissions] == [32, 32, 11]


async def test_the_engine_gets_the_first_while_later_ones_are_tokenized(ask: Ask) -> None:
    engine = Shuffling()
    await ask("embed", engine, slice_bytes_max=4096)
    assert engine.waiting_bytes[0] > engine.waiting_bytes[-1] == 0


class Refusing(Shuffling):
    def error(self, sequence: TokenSequence) -> HeddleError | None:
        return HeddleError(ErrorKind.INVALID_INPUT, "not this one") if sequence.tokens > 30 else None


async def test_the_first_sequence_that_failed_names_the_input(ask: Ask) -> None:
    engine = Refusing()
    failed = await ask("rerank", engine, submission_sequences_max=100, submission_tokens_max=1 << 20)
    assert isinstance(failed, HeddleError)
    first = next(index for index, text in enumerate(TEXTS) if len(text.split()) > 30)
    assert (failed.kind, failed.field) == (ErrorKind.INVALID_INPUT, f"documents[{first}]")


async def test_a_request_that_failed_cancels_each_of_its_submissions(ask: Ask) -> None:
    engine = Refusing()
    assert isinstance(await ask("embed", engine, submission_sequences_max=5), HeddleError)
    assert len(engine.submissions) > 10
    assert engine.cancelled > 0
    assert engine.cancelled <= len(engine.submissions)


class Overloaded(Shuffling):
    def outcome(self, message: engine_pb2.Sequences) -> HeddleError:
        return HeddleError(ErrorKind.OVERLOADED, "too much", retry_after_ms=7)


async def test_a_refused_submission_refuses_the_request(ask: Ask) -> None:
    failed = await ask("embed", Overloaded())
    assert isinstance(failed, HeddleError)
    assert (failed.kind, failed.field, failed.retry_after_ms) == (ErrorKind.OVERLOADED, "", 7)


class Short(Shuffling):
    """Omits the last row."""

    def outcome(self, message: engine_pb2.Sequences) -> engine_pb2.Outcome:
        outcome = super().outcome(message)
        assert isinstance(outcome, engine_pb2.Outcome)
        outcome.results[0].tensor.shape[0] -= 1
        return outcome


async def test_an_outcome_with_too_few_rows_is_an_error_of_the_pod(ask: Ask) -> None:
    failed = await ask("embed", Short())
    assert isinstance(failed, HeddleError)
    assert (failed.kind, failed.message) == (ErrorKind.INTERNAL, "internal error")
