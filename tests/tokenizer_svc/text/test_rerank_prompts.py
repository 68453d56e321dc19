"""Which prompt a reranker gets: known from its checkpoint, or stated by the operator."""

from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.language_models import AUTO
from heddle.checkpoint.sentence_modules import LogitScore
from heddle.rpc.settings import ConfigurationError, resolve
from tests.kinds import write_reranker
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.text.rerank_prompts import NONE, PROMPTS, RerankPrompt, choose_prompt, parse_template
from tokenizer_svc.text.tokenizer import Tokenizer


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint.read(write_reranker(tmp_path / "model"), name="mine")


def with_type(checkpoint: Checkpoint, model_type: str, name: str = "mine", origin: str = "") -> Checkpoint:
    config = {**checkpoint.config, "model_type": model_type, "_name_or_path": origin}
    return replace(checkpoint, config=config, name=name)


def choose(checkpoint: Checkpoint, setting: str = AUTO) -> RerankPrompt | None:
    return choose_prompt(checkpoint, Tokenizer.load(checkpoint), setting)


@pytest.mark.parametrize(
    ("model_type", "name", "origin", "prompt"),
    [
        ("qwen3", "mine", "Qwen/Qwen3-Reranker-0.6B", "qwen3-reranker"),
        ("qwen3", "tomaarsen/Qwen3-Reranker-0.6B-seq-cls", "", "qwen3-reranker"),
        ("qwen2", "michaelfeil/mxbai-rerank-base-v2-seq", "", "mxbai-rerank-v2"),
        ("qwen2", "mine", "./mxbai-rerank-large-v2-seq-cls", "mxbai-rerank-v2"),
        ("gemma", "mine", "BAAI/bge-reranker-v2-gemma", "bge-reranker-gemma"),
    ],
)
def test_the_prompt_of_a_decoder_is_known_from_its_checkpoint(
    checkpoint: Checkpoint, model_type: str, name: str, origin: str, prompt: str
) -> None:
    assert choose(with_type(checkpoint, model_type, name, origin)) is PROMPTS[prompt]


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("qwen3", "Skywork/Skywork-Reward-V2-Qwen3-0.6B"),
        ("qwen3", "baseten-admin/zerank-2-reranker-seq"),
        ("qwen3", "mine"),
        ("qwen2", "mine"),
        ("llama", "mine"),
    ],
)
def test_an_unknown_decoder_gets_no_prompt_and_a_warning(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture, model_type: str, name: str
) -> None:
    assert choose(with_type(checkpoint, model_type, name)) is None
    assert "its prompt is not known" in caplog.text


def test_a_language_model_with_the_score_tokens_of_a_known_one_is_recognised(checkpoint: Checkpoint) -> None:
    path = checkpoint.folder / "tokenizer.json"
    library = tokenizers.Tokenizer.from_file(str(path))
    library.add_tokens(["yes", "no"])
    library.save(str(path))
    vocabulary = library.get_vocab()
    yes, no = vocabulary["yes"], vocabulary["no"]
    qwen3 = with_type(checkpoint, "qwen3", "zerank-2-reranker")
    assert choose(replace(qwen3, logit_score=LogitScore(yes, no))) is PROMPTS["qwen3-reranker"]
    assert choose(replace(qwen3, logit_score=LogitScore(yes, None))) is None
    assert choose(replace(qwen3, logit_score=LogitScore(no, yes))) is None


def test_a_cross_encoder_has_no_prompt(checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture) -> None:
    assert choose(checkpoint) is None
    assert not caplog.records


def test_the_setting_overrides_the_checkpoint(checkpoint: Checkpoint) -> None:
    qwen3 = with_type(checkpoint, "qwen3", "my-reranker")
    assert choose(qwen3, NONE) is None
    assert choose(qwen3, "mxbai-rerank-v2") is PROMPTS["mxbai-rerank-v2"]
    assert choose(checkpoint, "{query}? {document}!") == RerankPrompt(("{query}? {document}!",))


def test_a_template_for_another_kind_of_model_stops_the_start(checkpoint: Checkpoint) -> None:
    embedder = replace(checkpoint, kind=ModelKind.EMBEDDER)
    assert choose(embedder) is None
    with pytest.raises(CheckpointError, match="mine is of the kind embedder"):
        choose(embedder, "qwen3-reranker")


@pytest.mark.parametrize(("words", "reason"), [(254, "leaves no room in 256"), (300, "longer than 254 tokens")])
def test_a_template_that_leaves_no_room_stops_the_start(checkpoint: Checkpoint, words: int, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        choose(checkpoint, "because " * words + "{query} {document}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("qwen3", "none of auto, none, qwen3-reranker"),
        ("{query} {query} {document}", "{query} once, not 2 times"),
        ("Is this good? {document}", "{query} once, not 0 times"),
        ("{query} {document} {instruction} {instruction}", "{instruction} more than once"),
    ],
)
def test_a_malformed_setting_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(TokenizerSettings, ["--rerank-template", text], {}, prog="x", env_prefix="X_")
    assert reason in str(caught.value)


def test_an_instruction_fills_its_slot() -> None:
    qwen3, mxbai = PROMPTS["qwen3-reranker"], PROMPTS["mxbai-rerank-v2"]
    assert "".join(qwen3.fill("q", "d").texts).count("<Instruct>: Given a web search query, retrieve") == 1
    assert "<Instruct>: Find laws\n<Query>: q\n" in "".join(qwen3.fill("q", "d", "Find laws").texts)
    assert "instruction" not in "".join(mxbai.fill("q", "d").texts)
    assert "user\ninstruction: Find laws\nquery: q\n" in "".join(mxbai.fill("q", "d", "Find laws").texts)
    own = parse_template("{query} {document}")
    assert own is not None
    assert not own.takes_instruction
