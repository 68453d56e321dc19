"""Whether a plain causal language model is an embedder or a reranker: by its name, by settings, or rejected."""

from pathlib import Path
from typing import Any

import pytest

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.language_models import parse_score_tokens
from heddle.checkpoint.sentence_modules import LogitScore, Pooling
from heddle.cli.metrics_ports import choose_addresses
from heddle.cli.serve import LocalServices
from heddle.cli.serve_settings import ServeSettings
from heddle.rpc.listening import bind_port
from tests.checkpoints import write_json, write_old_modules
from tests.heddle.checkpoint.bert_folder import with_config

VOCABULARY = {"yes": 5, "no": 6, "1": 7, "0": 8, "Yes": 9}


def write_language_model(folder: Path, model_type: str = "qwen3", **config: Any) -> Path:
    architecture = f"{model_type.capitalize()}ForCausalLM"
    with_config(folder, **{"model_type": model_type, "architectures": [architecture], **config})
    write_json(folder / "tokenizer.json", {"model": {"vocab": VOCABULARY}, "added_tokens": []})
    return folder


@pytest.mark.parametrize(
    ("model_type", "name", "score"),
    [
        ("qwen3", "Qwen/Qwen3-Reranker-0.6B", LogitScore(5, 6)),
        ("qwen2", "mixedbread-ai/mxbai-rerank-large-v2", LogitScore(7, 8)),
        ("gemma", "BAAI/bge-reranker-v2-gemma", LogitScore(9, None)),
    ],
)
@pytest.mark.parametrize("place", ["name", "config", "folder", "hub"])
def test_known_rerankers_are_recognised_by_each_of_their_names(
    tmp_path: Path, model_type: str, name: str, score: LogitScore, place: str
) -> None:
    hub = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / "abc"
    folder = {"folder": tmp_path / name, "hub": hub}.get(place, tmp_path / "mine")
    folder.mkdir(parents=True)
    write_language_model(folder, model_type, _name_or_path=name if place == "config" else "")
    checkpoint = Checkpoint.read(folder, name if place == "name" else "mine")
    assert (checkpoint.kind, checkpoint.logit_score) == (ModelKind.RERANKER, score)
    assert (len(checkpoint.labels), checkpoint.pooling, checkpoint.dimension) == (1, (), 0)


def test_language_model_of_unknown_purpose_is_rejected_with_advice(tmp_path: Path) -> None:
    folder = write_language_model(tmp_path)
    with pytest.raises(CheckpointError, match=r"a Qwen3ForCausalLM without modules.json .*--pooling .*--score-tokens"):
        Checkpoint.read(folder, "mine")
    assert Checkpoint.read(folder, "mine", "last_token").pooling == (Pooling.LAST_TOKEN,)


@pytest.mark.parametrize("name", ["ContextualAI/ctxl-rerank-v2-instruct", "zeroentropy/zerank-2-reranker"])
def test_unknown_rerankers_are_not_scored_by_tokens_of_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="can be an embedder or a reranker"):
        Checkpoint.read(write_language_model(tmp_path), name)


def test_relative_path_still_yields_the_name_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "Qwen3-Reranker-0.6B"
    folder.mkdir()
    monkeypatch.chdir(write_language_model(folder))
    assert Checkpoint.read(Path(), ".").kind is ModelKind.RERANKER


def test_parent_folder_is_not_a_name_of_the_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "rerankers" / "chat"
    folder.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="can be an embedder or a reranker"):
        Checkpoint.read(write_language_model(folder), "chat")


@pytest.mark.parametrize(
    ("tokens", "score"),
    [
        ("yes,no", LogitScore(5, 6)),
        (" yes , no ", LogitScore(5, 6)),
        ("Yes", LogitScore(9, None)),
        ("9693,2152", LogitScore(9693, 2152)),
        ('"1","0"', LogitScore(7, 8)),
        ("yes,6", LogitScore(5, 6)),
    ],
)
def test_operator_sets_the_tokens_of_a_language_model(tmp_path: Path, tokens: str, score: LogitScore) -> None:
    checkpoint = Checkpoint.read(write_language_model(tmp_path), "mine", score_tokens=tokens)
    assert (checkpoint.kind, checkpoint.logit_score) == (ModelKind.RERANKER, score)


def test_tokens_of_the_operator_override_the_checkpoint(tmp_path: Path) -> None:
    folder = write_language_model(tmp_path)
    write_old_modules(folder, ["Transformer", "LogitScore"])
    write_json(folder / "1_LogitScore" / "config.json", {"true_token_id": 1, "false_token_id": 2})
    assert Checkpoint.read(folder).logit_score == LogitScore(1, 2)
    assert Checkpoint.read(folder, score_tokens="yes,no").logit_score == LogitScore(5, 6)
    write_old_modules(folder, ["Transformer", "Pooling"], {"pooling_mode_lasttoken": True})
    assert Checkpoint.read(folder).kind is ModelKind.EMBEDDER
    assert Checkpoint.read(folder, score_tokens="yes,no").kind is ModelKind.RERANKER


def test_pooling_of_the_operator_overrides_the_name_of_a_reranker(tmp_path: Path) -> None:
    checkpoint = Checkpoint.read(write_language_model(tmp_path), "Qwen3-Reranker", "last_token")
    assert (checkpoint.kind, checkpoint.logit_score) == (ModelKind.EMBEDDER, None)


def test_contradictory_settings_are_rejected(tmp_path: Path) -> None:
    folder = write_language_model(tmp_path)
    with pytest.raises(CheckpointError, match="set only one of them"):
        Checkpoint.read(folder, "mine", "mean", "yes,no")
    with pytest.raises(CheckpointError, match="has no token 'oui'"):
        Checkpoint.read(folder, "mine", score_tokens="oui,non")
    with pytest.raises(CheckpointError, match="holds a BertModel, which is not a causal language model"):
        Checkpoint.read(with_config(folder), "mine", score_tokens="yes,no")


@pytest.mark.parametrize("setting", ["", ",", "yes,no,maybe", "yes no", '"', "yes,"])
def test_setting_must_be_one_or_two_tokens(setting: str) -> None:
    with pytest.raises(ValueError, match="score_tokens must be auto, or one or two tokens"):
        parse_score_tokens(setting)


@pytest.mark.parametrize(
    "config",
    [
        {"is_causal": False},
        {"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}},
        {"_name_or_path": "intfloat/my-embedding"},
    ],
)
def test_language_model_that_is_named_an_embedder_is_one(tmp_path: Path, config: dict[str, Any]) -> None:
    assert Checkpoint.read(write_language_model(tmp_path, **config), "mine").kind is ModelKind.EMBEDDER


def test_score_tokens_change_the_fingerprint(tmp_path: Path) -> None:
    folder = write_language_model(tmp_path)
    prints = {
        Checkpoint.read(folder, "mine", score_tokens=tokens).tokenizer_fingerprint for tokens in ("yes,no", "no,yes")
    }
    assert len(prints) == 2


def test_tokens_are_found_in_older_vocabulary_files(tmp_path: Path) -> None:
    folder = write_language_model(tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"neither a tokenizer\.json nor a vocab\.json"):
        Checkpoint.read(folder, "mine", score_tokens="yes,no")
    write_json(folder / "vocab.json", {"yes": 21})
    write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": {"22": {"content": "no"}}})
    assert Checkpoint.read(folder, "mine", score_tokens="yes,no").logit_score == LogitScore(21, 22)


def test_serve_gives_tokenizer_and_engine_the_same_tokens() -> None:
    settings = ServeSettings(score_tokens="yes,no")
    with bind_port("127.0.0.1", 0) as http:
        services = LocalServices(
            settings,
            ModelKind.RERANKER,
            "/tmp/somewhere",
            revision="",
            http=http,
            grpc_port=2,
            environ={},
            metrics=choose_addresses({}, "127.0.0.1", 1),
        )
        started = (services.tokenizer(), services.engine(0))
    for service in started:
        assert " --score-tokens yes,no " in " ".join(service.command)
