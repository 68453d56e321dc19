"""Reads the metrics of services. Computes rates and quantiles from two readings, as Prometheus does. Called by
`heddle top`."""

import math
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPException, RemoteDisconnected

from heddle.rpc.listening import authority

CONNECT_S_MAX = 2.0
READINGS_AT_ONCE = 32
BODY_BYTES_MAX = 16 << 20

DNS = "dns:///"

BUILD_INFO = "heddle_build_info"

# Requests of probes and of this command do not count as load. They have one of these routes and no model.
PROBE_ROUTES = frozenset({"/metrics", "/live", "/ready", "/health", "/ping", "/"})

Labels = Mapping[str, str]


class UnreadableError(Exception):
    """The metrics of an address cannot be read. The message is a short reason."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The metrics of one service at one time."""

    at: float  # time.monotonic
    samples: Mapping[str, Sequence[tuple[Labels, float]]]  # by name
    wall: float = 0.0  # time.time

    def find(self, name: str, **labels: str) -> list[tuple[Labels, float]]:
        """The samples whose labels include these."""
        wanted = labels.items()
        return [sample for sample in self.samples.get(name, ()) if wanted <= sample[0].items()]

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of the samples whose labels include these; None if there are none."""
        found = self.find(name, **labels)
        return sum(value for _, value in found) if found else None

    def totals_by(self, label: str, name: str) -> dict[str, float]:
        """The sums of samples by one of their labels."""
        totals: dict[str, float] = defaultdict(float)
        for labels, value in self.samples.get(name, ()):
            totals[labels.get(label, "")] += value
        return dict(totals)

    def describe(self) -> Labels:
        """The labels of heddle_build_info."""
        return next((labels for labels, _ in self.samples.get(BUILD_INFO, ())), {})


@dataclass(frozen=True, slots=True)
class Interval:
    """Two readings of one service, or only the later one."""

    before: Reading | None
    after: Reading

    def rate(self, name: str, **labels: str) -> float | None:
        """Increase of a counter per second; None without two readings, or if the counter does not exist."""
        if self.before is None or (total := self.after.total(name, **labels)) is None:
            return None
        return increase(self.before.total(name, **labels), total) / (self.after.at - self.before.at)

    def rates_by(self, label: str, name: str) -> dict[str, float]:
        """Increases of a counter per second by one of its labels; empty without two readings."""
        if self.before is None:
            return {}
        before, after = (reading.totals_by(label, name) for reading in (self.before, self.after))
        seconds = self.after.at - self.before.at
        return {key: increase(before.get(key), value) / seconds for key, value in after.items()}

    def mean(self, name: str, **labels: str) -> float | None:
        """Mean of a histogram's values in the interval; None if there are none."""
        count, total = self.rate(f"{name}_count", **labels), self.rate(f"{name}_sum", **labels)
        return total / count if count and total is not None else None

    def quantile(self, q: float, name: str, **labels: str) -> float | None:
        """Quantile of a histogram's values in the interval, interpolated like histogram_quantile; None if there are
        none."""
        if self.before is None:
            return None
        after, before = (self._buckets(reading, name, labels) for reading in (self.after, self.before))
        return interpolate(q, {bound: increase(before.get(bound), count) for bound, count in sorted(after.items())})

    @staticmethod
    def _buckets(reading: Reading, name: str, labels: Labels) -> dict[float, float]:
        """Cumulative counts by upper bound."""
        counts: dict[float, float] = defaultdict(float)
        for its_labels, value in reading.find(f"{name}_bucket", **labels):
            counts[float(its_labels["le"])] += value
        return counts


def increase(before: float | None, after: float) -> float:
    """A counter that has decreased was reset to 0 by a restart of its process."""
    return after if before is None or after < before else after - before


def interpolate(q: float, buckets: Mapping[float, float]) -> float | None:
    """`buckets` are cumulative counts by upper bound, ascending. Returns None if nothing was counted, and the last
    finite bound for a quantile beyond it."""
    count = buckets.get(math.inf, 0.0)
    if not count:
        return None
    rank, lower, below = q * count, 0.0, 0.0
    for bound, cumulative in buckets.items():
        if cumulative >= rank:
            if bound == math.inf:
                return lower
            return lower + (bound - lower) * (rank - below) / max(cumulative - below, 1e-9)
        lower, below = bound, cumulative
    return lower


def parse(text: str) -> Reading:
    """Raises UnreadableError for text in another format, and for metrics of another program."""
    from prometheus_client.parser import text_string_to_metric_families

    samples: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if not is_probe(sample.labels):
                    samples[sample.name].append((sample.labels, sample.value))
    except (ValueError, KeyError, IndexError):
        raise UnreadableError("its metrics are not in the Prometheus format") from None
    if BUILD_INFO not in samples:
        raise UnreadableError("not a Heddle service")
    return Reading(time.monotonic(), samples, time.time())


def is_probe(labels: Labels) -> bool:
    return labels.get("route") in PROBE_ROUTES and not labels.get("model")


@dataclass(frozen=True, slots=True)
class Scraper:
    """Reads any number of addresses at once."""

    opener: urllib.request.OpenerDirector
    headers: Labels

    @classmethod
    def make(cls, *, key: str = "", ca: str | None = None) -> "Scraper":
        """`key` is sent as a Bearer token; `ca` is a PEM file. Proxies in environment variables are ignored. Raises
        OSError for a file that cannot be read."""
        tls = ssl.create_default_context(cafile=ca)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls), RefuseRedirects()
        )
        return cls(opener, {"Authorization": f"Bearer {key}"} if key else {})

    def read_all(self, addresses: Sequence[str]) -> dict[str, Reading | UnreadableError]:
        """Returns the readings by address, in the order given."""
        if not addresses:
            return {}
        with ThreadPoolExecutor(min(READINGS_AT_ONCE, len(addresses))) as threads:
            return dict(zip(addresses, threads.map(self._try, addresses), strict=True))

    def _try(self, address: str) -> Reading | UnreadableError:
        try:
            return self.read(address)
        except UnreadableError as error:
            return error

    def read(self, address: str) -> Reading:
        """Raises UnreadableError."""
        request = urllib.request.Request(url_of(address), headers=dict(self.headers))
        try:
            with self.opener.open(request, timeout=CONNECT_S_MAX) as answer:
                text = answer.read(BODY_BYTES_MAX).decode(errors="replace")
        except urllib.error.HTTPError as error:
            error.close()
            raise UnreadableError(f"HTTP status {error.code}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise UnreadableError(explain(error)) from None
        return parse(text)


class RefuseRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, because the key would be sent to another host."""

    def redirect_request(self, *_: object) -> None:
        return None


def url_of(address: str) -> str:
    """http://host:port/metrics for host:port; another path is kept. Raises UnreadableError."""
    url = address if "://" in address else f"http://{address}"
    if not url.startswith(("http://", "https://")):
        raise UnreadableError("not an http or https address")
    rest = url.partition("://")[2]
    return url if rest.partition("/")[2] else f"{url.rstrip('/')}/metrics"


def explain(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no answer within {CONNECT_S_MAX:g} s"
    if isinstance(reason, RemoteDisconnected):
        return "it closed the connection: it may not speak HTTP, or only https://"
    if isinstance(reason, BadStatusLine):  # a port of gRPC, or of HTTPS
        return "it does not speak HTTP: name the port of its metrics, or https://host:port"
    if isinstance(reason, ssl.SSLError) and reason.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "it does not speak HTTPS: leave out https://"
    if isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLCertVerificationError):
        return f"the TLS handshake failed: {(reason.reason or str(reason)).lower().replace('_', ' ')}"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror.lower()
    return str(reason) or type(reason).__name__


def resolve(addresses: Iterable[str]) -> list[str]:
    """Replaces dns:///name:port by the addresses behind the name, or by name:port if it cannot be resolved."""
    found: list[str] = []
    for address in addresses:
        found += look_up(address) if address.startswith(DNS) else [address]
    return list(dict.fromkeys(found))


def look_up(address: str) -> list[str]:
    name, _, port = address.removeprefix(DNS).rpartition(":")
    try:
        hosts = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return [address.removeprefix(DNS)]
    return sorted({authority(str(host[4][0]), int(port)) for host in hosts})
