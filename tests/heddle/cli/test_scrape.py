"""Rates and quantiles of two readings equal Prometheus's, and an address that cannot be read has a reason."""

import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from heddle.cli.scrape import Interval, Reading, Scraper, UnreadableError, interpolate, parse, resolve, url_of

INFO = 'heddle_build_info{service="gateway",version="1",model="m",device="",dtype="",backend=""} 1\n'
NOT_HTTPS = "it does not speak HTTPS: leave out https://"
SECONDS = "heddle_gateway_request_seconds"


def reading(at: float, text: str) -> Reading:
    return replace(parse(INFO + text), at=at)


def requests(status: int, fast: int, slow: int, route: str = "/rerank", model: str = "m") -> str:
    """Metrics text with `fast` requests within 10 ms, and `slow` ones within 1 s."""
    labels = f'route="{route}",model="{model}",status="{status}"'
    buckets = {"0.01": fast, "1.0": fast + slow, "+Inf": fast + slow}
    lines = [f'{SECONDS}_bucket{{{labels},le="{bound}"}} {count}' for bound, count in buckets.items()]
    lines += [f"{SECONDS}_count{{{labels}}} {fast + slow}", f"{SECONDS}_sum{{{labels}}} {fast * 0.005 + slow * 0.5}"]
    return "\n".join(lines) + "\n"


def test_a_rate_is_the_increase_per_second_by_label() -> None:
    before = reading(10, requests(200, 5, 0) + requests(503, 1, 0))
    after = reading(12, requests(200, 15, 0) + requests(503, 4, 0) + requests(429, 6, 0))
    interval = Interval(before, after)
    assert interval.rates_by("status", f"{SECONDS}_count") == {"200": 5, "503": 1.5, "429": 3}
    assert interval.rate(f"{SECONDS}_count") == 9.5
    assert interval.rate(f"{SECONDS}_count", status="503") == 1.5
    assert interval.rate("heddle_no_such_total") is None


def test_a_reset_counter_counts_from_zero() -> None:
    interval = Interval(reading(0, requests(200, 100, 0)), reading(2, requests(200, 6, 0)))
    assert interval.rate(f"{SECONDS}_count") == 3
    assert interval.quantile(0.5, SECONDS) == pytest.approx(0.005)


def test_quantile_and_mean_are_those_of_the_interval_alone() -> None:
    interval = Interval(reading(0, requests(200, 1000, 0)), reading(1, requests(200, 1010, 10)))
    assert interval.quantile(0.5, SECONDS) == pytest.approx(0.01)
    assert interval.quantile(0.75, SECONDS) == pytest.approx(0.505)
    assert interval.mean(SECONDS) == pytest.approx(0.2525)


def test_without_two_readings_or_requests_there_is_no_rate() -> None:
    after = reading(1, requests(200, 5, 0))
    assert Interval(None, after).rate(f"{SECONDS}_count") is None
    assert Interval(None, after).rates_by("status", f"{SECONDS}_count") == {}
    assert Interval(None, after).quantile(0.5, SECONDS) is None
    assert Interval(after, replace(after, at=2)).quantile(0.5, SECONDS) is None
    assert Interval(after, replace(after, at=2)).mean(SECONDS) is None


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert interpolate(0.99, {0.1: 1, 1.0: 2, math.inf: 10}) == 1.0


def test_probes_do_not_count_as_load_but_requests_to_the_same_path_do() -> None:
    text = requests(200, 9, 0, "/metrics", "") + requests(503, 9, 0, "/", "") + requests(200, 2, 0, "/", "m")
    assert reading(0, text + requests(404, 1, 0, "unmatched", "")).total(f"{SECONDS}_count") == 3


@pytest.mark.parametrize("text", ["<html>hello</html>", "up 1\n", "a{b=} 1", "x\x00 \n{", ""])
def test_text_that_is_not_heddles_metrics_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableError):
        parse(text)


def test_an_address_is_a_host_and_port_or_a_url() -> None:
    assert url_of("10.0.0.1:9152") == "http://10.0.0.1:9152/metrics"
    assert url_of("https://heddle.example/") == "https://heddle.example/metrics"
    assert url_of("http://proxy/engine/metrics") == "http://proxy/engine/metrics"
    with pytest.raises(UnreadableError):
        url_of("file:///etc/passwd")


def test_a_dns_target_resolves_to_all_pods_behind_the_name() -> None:
    assert "127.0.0.1:9152" in resolve(["dns:///localhost:9152", "127.0.0.1:9152"])
    assert resolve(["dns:///no-such-host.invalid:9152"]) == ["no-such-host.invalid:9152"]


@contextmanager
def web_server(status: int, body: str = "", **headers: str) -> Iterator[tuple[str, list[str]]]:
    """Yields its address, and the Authorization headers that it has seen."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("authorization", ""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


def test_the_key_is_sent_and_does_not_follow_a_redirect() -> None:
    with web_server(200, INFO) as (good, seen), web_server(302, location=f"http://{good}/metrics") as (moved, _):
        answers = Scraper.make(key="secret").read_all([good, moved])
    assert isinstance(answers[good], Reading)
    assert str(answers[moved]) == "HTTP status 302"
    assert seen == ["Bearer secret"]


def test_an_unreadable_address_has_a_reason() -> None:
    with web_server(503) as (broken, _), web_server(200, "up 1\n") as (other, _), socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # not listening
        closed = f"127.0.0.1:{free.getsockname()[1]}"
        answers = Scraper.make().read_all([broken, other, closed, "no-such-host.invalid:80", "127.0.0.1:x"])
    assert [str(answer) for answer in answers.values()][:3] == [
        *("HTTP status 503", "not a Heddle service", "connection refused")
    ]
    assert all(isinstance(answer, UnreadableError) for answer in answers.values())


@pytest.mark.parametrize(
    ("answer", "reason", "of_https"),
    [
        (b"\x00\x00\x18\x04\x00\x00\x00\x00\x00", "it does not speak HTTP: ", NOT_HTTPS),  # settings of HTTP/2
        (b"\x15\x03\x03\x00\x02\x02\x46", "it does not speak HTTP: ", "the TLS handshake failed: "),  # an alert of TLS
        (b"\x1b[2J\x1b[2J", "it does not speak HTTP: ", NOT_HTTPS),
        (b"", "it closed the connection: ", "the TLS handshake failed: "),
    ],
)
@pytest.mark.parametrize("scheme", ["", "https://"])
def test_a_port_of_another_protocol_is_named_so(answer: bytes, reason: str, of_https: str, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reply() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        address = f"{scheme}127.0.0.1:{listener.getsockname()[1]}"
        (unreadable,) = Scraper.make().read_all([address]).values()
        thread.join()
    assert str(unreadable).startswith(of_https if scheme else reason)
