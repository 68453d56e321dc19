"""`heddle top`: shows the load of running services in the terminal, second by second. Called by `main`."""

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from heddle.cli.scrape import Interval, Reading, Scraper, resolve
from heddle.cli.top_view import Down, render
from heddle.rpc.settings import EXIT_MISCONFIGURED, ConfigurationError, at_least, list_settings, load

if TYPE_CHECKING:
    from rich.console import Console, Group

PREFIX = "HEDDLE_TOP_"

# The addresses at which `heddle serve` serves metrics, with up to PODS_MAX pods beside the gateway.
PODS_MAX = 24
LOCAL_ADDRESSES = ("127.0.0.1:8080", *(f"127.0.0.1:{9151 + index}" for index in range(PODS_MAX)))

# Width in characters of output to a pipe or file, unless the variable COLUMNS is set.
PLAIN_WIDTH = 200

QUIT = ("q", "Q")


@dataclass(frozen=True)
class TopSettings:
    """Shows requests, latencies, tokens, queues, batches and pods of running services, second by second. q ends it.

        heddle top                                       what runs on this machine at the default ports
        heddle top http://127.0.0.1:8090 127.0.0.1:9155  what heddle serve names when it is ready
        heddle top gateway:80 dns:///tokenizers:9151 dns:///engines:9152
        heddle top --once | less

    An address is the host:port or the URL of a service's metrics: the HTTP port of a gateway, 9151 of a tokenizer pod
    and 9152 of an engine pod by default. dns:///name:port is all pods behind a name."""

    # Addresses to read, as on the command line.
    addresses: tuple[str, ...] = ()
    # Seconds between two readings. Rates and quantiles cover this interval.
    interval_s: float = 1.0
    # Print one table and end, with exit code 1 if an address is down.
    once: bool = False
    # Key to send, if a proxy in front of the metrics needs one. Set it by variable, not by flag.
    api_key: str = ""
    # Authorities of certificates, PEM, for https addresses. Those of the system when unset.
    tls_ca: Path | None = None

    def __post_init__(self) -> None:
        at_least(0.1, interval_s=self.interval_s)


@dataclass(slots=True)
class Watched:
    """The addresses to read, and the last reading of each."""

    scraper: Scraper
    addresses: Sequence[str]
    hides_unseen: bool  # leaves out addresses that have never answered
    readings: dict[str, Reading] = field(default_factory=dict)

    def read(self) -> dict[str, Interval | Down]:
        """Returns the state of each service by address, in the order of the addresses."""
        services: dict[str, Interval | Down] = {}
        for address, one in self.scraper.read_all(resolve(self.addresses)).items():
            last = self.readings.get(address)
            if isinstance(one, Reading):
                services[address] = Interval(last, one)
                self.readings[address] = one
            elif last is not None or not self.hides_unseen:
                services[address] = Down(str(one), None if last is None else time.monotonic() - last.at)
        return services


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Returns the exit code."""
    settings = load(TopSettings, name_addresses(argv), environ, prog="heddle top", env_prefix=PREFIX)
    try:
        watched = watch(settings)
        console = make_console(environ)
        if settings.once:
            return show_once(watched, console, settings.interval_s)
        with contextlib.suppress(KeyboardInterrupt):
            show_live(watched, console, settings.interval_s)
    except ConfigurationError as error:
        print(f"heddle top: {error}", file=sys.stderr)
        return EXIT_MISCONFIGURED
    except KeyboardInterrupt:
        return 130
    return 0


def name_addresses(argv: Sequence[str]) -> list[str]:
    """Turns arguments that are neither flags nor their values into --addresses."""
    with_value = {setting.flag for setting in list_settings(TopSettings, PREFIX) if setting.hint is not bool}
    named: list[str] = []
    for index, word in enumerate(argv):
        is_address = not word.startswith("-") and (not index or argv[index - 1] not in with_value)
        named.append(f"--addresses={word}" if is_address else word)
    return named


def watch(settings: TopSettings) -> Watched:
    """Raises ConfigurationError."""
    ca = settings.tls_ca
    try:
        scraper = Scraper.make(key=settings.api_key, ca=str(ca) if ca else None)
    except OSError as error:
        raise ConfigurationError(f"cannot read {ca}: {error.strerror or error}") from None
    return Watched(scraper, settings.addresses or LOCAL_ADDRESSES, hides_unseen=not settings.addresses)


def make_console(environ: Mapping[str, str]) -> "Console":
    from rich.console import Console

    is_plain = not sys.stdout.isatty() and not environ.get("COLUMNS")
    return Console(width=PLAIN_WIDTH if is_plain else None, highlight=False)


def show_once(watched: Watched, console: "Console", interval_s: float) -> int:
    """Raises ConfigurationError if nothing answers."""
    watched.read()
    time.sleep(interval_s)
    services = watched.read()
    if not services:
        raise ConfigurationError(explain_nothing_found())
    console.print(view(services, console, finds=watched.hides_unseen))
    return int(any(isinstance(one, Down) for one in services.values()))


def show_live(watched: Watched, console: "Console", interval_s: float) -> None:
    """Shows the tables until q is pressed."""
    services = watched.read()
    if not console.is_terminal:
        while True:
            time.sleep(interval_s)
            console.print(view(watched.read(), console, finds=watched.hides_unseen))
            console.print()
    from rich.live import Live

    with pressed_keys() as wait_for_key, Live(console=console, screen=True, auto_refresh=False) as live:
        due = time.monotonic() + interval_s / 2  # the first rates come sooner
        while True:
            live.update(view(services, console, finds=watched.hides_unseen), refresh=True)
            if wait_for_key(max(0.0, due - time.monotonic())) in QUIT:
                return
            services = watched.read()
            due = max(due, time.monotonic() - interval_s) + interval_s


def view(services: Mapping[str, Interval | Down], console: "Console", *, finds: bool) -> "Group":
    """With `finds`, it says what was not found."""
    now = time.strftime("%H:%M:%S")
    kinds = {one.after.describe().get("service") for one in services.values() if isinstance(one, Interval)}
    if not services:
        now = f"{now}  {explain_nothing_found()}"
    elif finds and "gateway" not in kinds:
        now = f"{now}  no gateway found at {LOCAL_ADDRESSES[0]}: heddle top http[s]://HOST:PORT ADDRESS ..."
    return render(services, width=console.width, now=now)


def explain_nothing_found() -> str:
    first, last = LOCAL_ADDRESSES[1], LOCAL_ADDRESSES[-1].rpartition(":")[2]
    return f"nothing answers at {LOCAL_ADDRESSES[0]} and {first} to {last}: heddle top ADDRESS ..."


@contextlib.contextmanager
def pressed_keys() -> Iterator[Callable[[float], str]]:
    """Yields a function that waits up to the given seconds for a key, and returns the key, or "" if none was pressed.
    Inside the block, the terminal sends each key at once and does not show it."""
    if not sys.stdin.isatty():
        yield wait_without_keys
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield wait_for_key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def wait_for_key(seconds: float) -> str:
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace") if readable else ""


def wait_without_keys(seconds: float) -> str:
    time.sleep(seconds)
    return ""
