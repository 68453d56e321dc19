"""POST /tokenize and /decode: TEI's shapes, byte offsets, and back again."""

from typing import Any

import httpx

from tests.http_gateway.calls import answer_to, refusal_of

TEXT = "Zoë, 王小明 🎉"


async def test_tokens_have_byte_offsets(http: httpx.AsyncClient) -> None:
    (tokens,) = await answer_to(http, "/tokenize", inputs=TEXT)
    assert tokens[0] == {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert tokens[-1]["text"] == "[SEP]"
    for token in tokens[1:-1]:
        assert token["text"] == TEXT.encode()[token["start"] : token["stop"]].decode()
        assert not token["special"]
    bare = await answer_to(http, "/tokenize", inputs=[TEXT, "a"], add_special_tokens=False)
    assert bare[0] == tokens[1:-1]
    assert len(bare) == 2


async def test_decode_reverses_tokenize(http: httpx.AsyncClient) -> None:
    (tokens,) = await answer_to(http, "/tokenize", inputs="hello world")
    ids = [token["id"] for token in tokens]
    assert await answer_to(http, "/decode", ids=ids) == ["hello world"]
    assert await answer_to(http, "/decode", ids=[ids, ids[:2]]) == ["hello world", "hello"]
    assert await answer_to(http, "/decode", ids=ids, skip_special_tokens=False) == ["[CLS] hello world [SEP]"]


async def test_refusals_name_the_input(http: httpx.AsyncClient) -> None:
    cases: list[tuple[str, dict[str, Any], tuple[int, str], str]] = [
        ("/tokenize", {"inputs": []}, (400, "Empty"), ""),
        ("/tokenize", {"inputs": ["a"] * 2049}, (413, "Validation"), "inputs holds 2049"),
        ("/tokenize", {"inputs": "a", "prompt_name": "query"}, (400, "Validation"), ""),
        ("/decode", {"ids": []}, (400, "Empty"), "ids is empty"),
        ("/decode", {"ids": [[101], [30522]]}, (400, "Validation"), "ids[1]: "),
        ("/decode", {"ids": [-1]}, (400, "Validation"), "ids: "),
        ("/decode", {"ids": [30522]}, (400, "Validation"), "token id 30522"),
        (
            "/decode",
            {"ids": [[101], 5]},
            (400, "Validation"),
            "ids[1]: a single token id: send the ids of each text as a list",
        ),
        ("/decode", {"ids": "101"}, (400, "Validation"), "ids: "),
    ]
    for path, body, expected, beginning in cases:
        refusal = await refusal_of(http, path, **body)
        assert refusal[:2] == expected, (path, body)
        assert refusal[2].startswith(beginning), refusal
