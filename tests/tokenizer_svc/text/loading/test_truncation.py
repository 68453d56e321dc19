"""A checkpoint's settings for inputs that are too long: the limit, and the side that is cut off."""

from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer
from transformers import BertModel

from heddle.checkpoint import Checkpoint
from heddle.client import Client
from heddle.v1 import inference_pb2 as pb
from tests.checkpoints import POSITIONS, write_bert, write_json, write_old_modules, write_tokenizer
from tests.cluster import engine_pod, tokenizer_pod
from tests.tokenizer_svc.encoding import encode_one, read_ids
from tests.tokenizer_svc.text.loading.folders import bert, write_folder
from tokenizer_svc.text.loading.fast_tokenizer import load_fast_tokenizer
from tokenizer_svc.text.tokenizer import Tokenizer
from tokenizer_svc.text.truncation import Truncation

LONG = " ".join(f"w{index % 90}" for index in range(200))


def write_embedder(folder: Path, settings: dict[str, Any]) -> None:
    """A whole checkpoint, so that sentence-transformers can load it for comparison."""
    write_tokenizer(folder)
    write_bert(folder, BertModel)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **settings})
    write_old_modules(folder, ["Transformer", "Pooling"], {"word_embedding_dimension": 32})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model_max_length": 1e30},
        {"model_max_length": int(1e30)},
        {"model_max_length": None},
        {"model_max_length": 20},
        {"truncation_side": "left"},
        {"truncation_side": "left", "model_max_length": 20},
        {"truncation_side": "right"},
    ],
)
def test_long_text_is_cut_as_sentence_transformers_cuts_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    write_embedder(tmp_path, settings)
    reference = SentenceTransformer(str(tmp_path), device="cpu")
    expected = reference.preprocess([LONG])["input_ids"][0].tolist()
    checkpoint = Checkpoint.read(tmp_path)
    tokenizer = Tokenizer.load(checkpoint)
    result = encode_one(tokenizer, LONG, tokenizer.options(tokenizer.truncation_side))
    assert read_ids(result) == expected
    assert len(expected) == checkpoint.sequence_tokens_max == min(settings.get("model_max_length") or 1e30, POSITIONS)


@pytest.mark.parametrize(
    ("settings", "saved", "expected"),
    [
        ({}, None, Truncation.RIGHT),
        ({}, "left", Truncation.LEFT),
        ({"truncation_side": "right"}, "left", Truncation.RIGHT),
        ({"truncation_side": "left"}, "right", Truncation.LEFT),
    ],
)
def test_side_of_the_settings_overrides_that_of_tokenizer_json(
    tmp_path: Path, settings: dict[str, Any], saved: str | None, expected: Truncation
) -> None:
    from transformers import AutoTokenizer

    library = bert()
    if saved:
        library.enable_truncation(16, direction=saved)
    write_folder(tmp_path, library, {"tokenizer_class": "PreTrainedTokenizerFast", **settings})
    assert load_fast_tokenizer(Checkpoint.read(tmp_path)).truncation_side is expected
    assert AutoTokenizer.from_pretrained(tmp_path).truncation_side == expected.value


@pytest.mark.parametrize(
    ("pod", "request_side", "expected"),
    [
        ({}, pb.TRUNCATION_SIDE_UNSPECIFIED, pb.TRUNCATION_SIDE_LEFT),
        ({"truncation_side": "auto"}, pb.TRUNCATION_SIDE_UNSPECIFIED, pb.TRUNCATION_SIDE_LEFT),
        ({"truncation_side": "right"}, pb.TRUNCATION_SIDE_UNSPECIFIED, pb.TRUNCATION_SIDE_RIGHT),
        ({}, pb.TRUNCATION_SIDE_RIGHT, pb.TRUNCATION_SIDE_RIGHT),
    ],
)
async def test_request_overrides_the_pod_and_the_pod_the_checkpoint(
    tmp_path: Path, pod: dict[str, Any], request_side: pb.TruncationSide, expected: pb.TruncationSide
) -> None:
    async def vector(side: pb.TruncationSide) -> bytes:
        request = pb.EmbedRequest(inputs=[pb.Input(text=LONG)], truncation_side=side)
        return (await client.embed(request)).embeddings.data

    write_embedder(tmp_path / "model", {"truncation_side": "left"})
    model: dict[str, Any] = {"model": str(tmp_path / "model")}
    async with (
        engine_pod(tmp_path, **model) as at,
        tokenizer_pod(tmp_path, at, **model, **pod) as address,
        Client(address) as client,
    ):
        assert await vector(request_side) == await vector(expected)
        assert await vector(pb.TRUNCATION_SIDE_LEFT) != await vector(pb.TRUNCATION_SIDE_RIGHT)
