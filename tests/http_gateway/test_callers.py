"""The key, the flow and the priority of a request, by key, user and address."""

import hashlib
import logging
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest
from msgspec.json import Decoder

import http_gateway.__main__ as gateway_main
from heddle.rpc.errors import HeddleError
from heddle.rpc.keys import ApiKey, ApiKeys, hash_key, load_keys
from http_gateway.api.openai_embeddings import EmbeddingsBody
from http_gateway.callers import Callers, parse_address
from http_gateway.errors import Failure
from http_gateway.web.message import Answer, Request
from http_gateway.web.routing import JsonHandler
from tests.cluster import gateway
from tests.http_gateway.calls import make_request

SECRET = "secret"


def make_key(name: str = "", best_priority: int | None = None, *, secret: str = SECRET) -> ApiKey:
    return ApiKey(hash_key(secret), name, best_priority)


KEY = make_key("search", 3)
OBJECTIVES = {"interactive": 0, "batch": 9}


def identify(
    *headers: tuple[str, str],
    key: ApiKey | None = None,
    secret: str = SECRET,
    peer: str = "192.0.2.1:5000",
    best_priority: int = 0,
    proxies: int = 0,
) -> Request:
    authorization = [("authorization", f"Bearer {secret}")] if key else []
    request = make_request("/embed", [("x-request-id", "id"), *authorization, *headers], peer)
    Callers(ApiKeys([key] if key else []), best_priority, proxies, OBJECTIVES).identify(request)
    return request


def test_requests_of_one_key_share_a_flow_that_hides_the_key() -> None:
    first, second = identify(key=KEY), identify(key=KEY, peer="192.0.2.99:1")
    other = identify(key=make_key(secret="another"), secret="another")
    assert first.flow == second.flow == f"key:{hashlib.sha256(b'secret').hexdigest()[:16]}//id"
    assert first.flow.split("/")[0] != other.flow.split("/")[0]
    assert "secret" not in first.flow


def test_users_take_turns_inside_their_key() -> None:
    users = [identify(("x-heddle-flow", user), key=KEY).flow.split("/") for user in ("ann@example.com", "bob/../x", "")]
    assert len({key for key, _, _ in users}) == 1
    assert len({user for _, user, _ in users}) == 3
    assert not any("ann" in user for _, user, _ in users)


def test_without_keys_the_flow_is_the_user_or_else_the_address() -> None:
    ann = identify(("x-heddle-flow", "ann")).flow
    assert ann == identify(("x-heddle-flow", "ann"), peer="192.0.2.2:1").flow
    assert ann.startswith("user:")
    assert identify().flow == identify(peer="192.0.2.1:999").flow == "peer:192.0.2.1/id"
    assert identify(peer="[2001:db8::1]:5000").flow == "peer:2001:db8::1/id"
    assert identify(peer="unix:").flow == "id"


@pytest.mark.parametrize("header", ["x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id"])
def test_llm_ds_fairness_id_names_the_user_unless_our_header_does(header: str) -> None:
    assert identify((header, "ann")).flow == identify(("x-heddle-flow", "ann")).flow
    assert identify((header, "bob"), ("x-heddle-flow", "ann")).flow == identify(("x-heddle-flow", "ann")).flow
    assert identify((header, "ann"), key=KEY).flow == identify(("x-heddle-flow", "ann"), key=KEY).flow


@pytest.mark.parametrize("header", ["x-llm-d-inference-objective", "x-gateway-inference-objective"])
@pytest.mark.parametrize(
    ("key", "objective", "priority"),
    [(None, "batch", 9), (None, "interactive", 1), (None, "unknown", 1), (KEY, "interactive", 3), (KEY, "batch", 9)],
)
def test_an_objective_sets_the_priority_within_what_the_key_allows(
    header: str, key: ApiKey | None, objective: str, priority: int
) -> None:
    assert identify((header, objective), key=key, best_priority=1).options().priority == priority
    asked = identify((header, objective), ("x-heddle-priority", "5"), key=key, best_priority=1)
    assert asked.options().priority == 5


async def test_openais_field_names_the_user_unless_the_header_does() -> None:
    async def handle(_: EmbeddingsBody, request: Request) -> Answer:
        return Answer(request.options().flow)

    task = JsonHandler(Decoder(EmbeddingsBody), handle)
    flows = []
    for headers, body in (
        ((), b'{"input": "a", "user": "ann"}'),
        ((("x-heddle-flow", "ann"),), b'{"input": "a", "user": "bob"}'),
        ((), b'{"input": "a", "user": null}'),
    ):
        request = identify(*headers)
        request.body = body
        flows.append((await task(request)).value)
    assert flows[0] == flows[1] == identify(("x-heddle-flow", "ann")).flow
    assert flows[2] == identify().flow


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, ["203.0.113.5"], "192.0.2.1"),
        (1, [], "192.0.2.1"),
        (1, ["203.0.113.5"], "203.0.113.5"),
        (1, ["198.51.100.66, 203.0.113.5"], "203.0.113.5"),
        (1, ["198.51.100.66", "203.0.113.5:4711"], "203.0.113.5"),
        (2, ["198.51.100.66, 203.0.113.5, 10.0.0.1"], "203.0.113.5"),
        (2, ["203.0.113.5"], "192.0.2.1"),
        (1, ["[2001:db8::5]:80"], "2001:db8::5"),
        (1, ["unknown"], "192.0.2.1"),
    ],
)
def test_the_address_is_what_the_outermost_trusted_proxy_saw(proxies: int, forwarded: list[str], address: str) -> None:
    headers = [("x-forwarded-for", value) for value in forwarded]
    assert identify(*headers, proxies=proxies).flow == f"peer:{address}/id"


def test_only_ip_addresses_count_as_addresses() -> None:
    assert [parse_address(entry) for entry in ("1.2.3.4", "1.2.3.4:5", "::1", "[::1]:5", "x", "", "1.2.3.4/8")] == [
        *("1.2.3.4", "1.2.3.4", "::1", "::1", "", "", "")
    ]


@pytest.mark.parametrize(
    ("key", "asked", "priority"),
    [
        *((None, None, 1), (None, "1", 1), (None, "7", 7)),
        *((KEY, None, 3), (KEY, "3", 3), (KEY, "4294967295", 2**32 - 1)),
        *((make_key("urgent", 0), None, 0), (make_key("urgent", 0), "0", 0), (make_key("plain"), None, 1)),
    ],
)
def test_the_header_sets_the_priority_within_what_the_key_allows(
    key: ApiKey | None, asked: str | None, priority: int
) -> None:
    headers = [("x-heddle-priority", asked)] if asked else []
    request = identify(*headers, key=key, best_priority=1)
    assert request.options().priority == priority


@pytest.mark.parametrize(("key", "asked"), [(KEY, "2"), (KEY, "0"), (None, "0"), (make_key("plain"), "0")])
def test_a_better_priority_than_the_key_allows_is_403(key: ApiKey | None, asked: str) -> None:
    with pytest.raises(Failure, match="x-heddle-priority") as refused:
        identify(("x-heddle-priority", asked), key=key, best_priority=1)
    assert (refused.value.status, refused.value.param) == (403, "x-heddle-priority")


@pytest.mark.parametrize("asked", ["high", "-1", "1.5", "4294967296", "", "1" * 5000])
def test_a_priority_that_is_not_a_number_is_refused(asked: str) -> None:
    with pytest.raises(HeddleError, match="whole number"):
        identify(("x-heddle-priority", asked))


async def test_the_gateway_enforces_keys_and_priorities_of_a_file(
    tokenizer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "http_gateway.app")
    file = tmp_path / "keys"
    hashed = hashlib.sha256(b"sk-nightly").hexdigest()
    file.write_text(f"# who may call\nsearch  sk-search\n\nnightly sha256:{hashed} 5  # last\n")
    async with (
        gateway(tokenizer, api_keys=("third",), api_keys_file=file) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        cases = [("sk-search", "0", 200), ("sk-nightly", "5", 200), ("sk-nightly", "4", 403), ("third", "0", 200)]
        for key, priority, status in (
            *cases,
            (hashed, "5", 401),
            (f"sha256:{hashed}", "5", 401),
            ("sk-search", "x", 400),
        ):
            headers = {"authorization": f"Bearer {key}", "x-heddle-priority": priority}
            response = await http.post("/v1/embeddings", json={"input": "a"}, headers=headers)
            assert response.status_code == status, response.text
            assert "sk-" not in caplog.text
            if status == 200:
                names = {"sk-search": "search", "sk-nightly": "nightly", "third": "key-1"}
                assert caplog.records[-1].__dict__["key"] == names[key]
            if status == 403:
                assert response.json()["error"]["type"] == "permission_error"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sk-alone\n", "line 1 "),
        ("ok sk-1\nname sk-2 high\n", "line 2 .* priority"),
        ("name sk-2 -1\n", "line 1 .* priority"),
        (f"name sk-2 {'1' * 5000}\n", "line 1 .* priority"),
        ("name sha256:abc\n", "line 1 .* 64 hexadecimal"),
        ("a b c d\n", "line 1 "),
        ("# nobody\n", "no key"),
    ],
)
def test_a_wrong_file_of_keys_stops_the_start_and_reveals_no_key(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"^api_keys_file: .*{words}") as refused:
        load_keys((), file)
    assert "sk-" not in str(refused.value)
    with pytest.raises(ValueError, match="cannot read"):
        load_keys((), tmp_path / "missing")


def test_a_duplicate_key_is_refused() -> None:
    with pytest.raises(ValueError, match="'again' has a key that is listed twice"):
        ApiKeys([ApiKey(hash_key("x"), "first"), ApiKey(hash_key("x"), "again")])


def test_keys_are_kept_as_hashes_only() -> None:
    keys = ApiKeys(load_keys(("secret",), None))
    assert "secret" not in repr(vars(keys))


async def test_a_header_that_a_proxy_adds_below_the_callers_own_is_seen(tokenizer: str) -> None:
    """Uses granian's headers, not httpx's. If the last value were not seen, a caller could choose its address."""
    seen: list[str] = []

    class Spy(Callers):
        def identify(self, request: Request) -> None:
            super().identify(request)
            seen.append(request.peer)

    with patch.object(gateway_main, "Callers", Spy):
        async with gateway(tokenizer, trusted_proxies=1) as url, httpx.AsyncClient(base_url=url) as http:
            headers = [("x-forwarded-for", "198.51.100.66"), ("x-forwarded-for", "203.0.113.5")]
            assert (await http.post("/embed", json={"inputs": "a"}, headers=headers)).status_code == 200
            assert (await http.post("/embed", json={"inputs": "a"})).status_code == 200
    assert seen == ["203.0.113.5", "127.0.0.1"]
