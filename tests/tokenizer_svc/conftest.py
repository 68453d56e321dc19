"""Fixtures of the tokenizer's tests."""

import pytest

from tests.small_tokenizers import BUILDERS
from tests.tokenizer_svc.parity import Parity, parity_of
from tokenizer_svc.text.tokenizer import Tokenizer


@pytest.fixture(params=BUILDERS)
def parity(request: pytest.FixtureRequest) -> Parity:
    return parity_of(request.param)


@pytest.fixture
def word_piece() -> Tokenizer:
    return parity_of("word_piece").ours
