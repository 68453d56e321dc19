"""Fixtures of the tokenizer's tests."""

import pytest

from tests.small_tokenizers import BUILDERS
from tests.tokenizer_svc.parity import Parity, load_parity
from tokenizer_svc.text.tokenizer import Tokenizer


@pytest.fixture(params=BUILDERS)
def parity(request: pytest.FixtureRequest) -> Parity:
    return load_parity(request.param)


@pytest.fixture
def word_piece() -> Tokenizer:
    return load_parity("word_piece").ours
