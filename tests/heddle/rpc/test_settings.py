"""Settings come from flags, environment and defaults. A mistake is reported in one line."""

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from heddle.rpc.settings import ConfigurationError, at_least, load, resolve


class Mode(enum.Enum):
    FAST = "fast"
    EXACT = "exact"


@dataclass(frozen=True)
class Base:
    # How loud the process is.
    log_level: str = "info"


@dataclass(frozen=True)
class LoomSettings(Base):
    """Weaves 100 % of the threads."""

    # Addresses

    # Where to listen; several
    # with commas.
    listen: tuple[str, ...] = ("unix:/tmp/loom",)

    # Limits

    # Tokens of one batch.
    batch_tokens_max: int = 16_384
    wait_s: float = 0.5
    verbose: bool = False
    dtype: Literal["auto", "float32"] = "auto"
    mode: Mode = Mode.FAST
    cache: Path = Path("/tmp")
    port: int | None = None
    sizes: tuple[int, ...] = field(default_factory=lambda: (1, 2))

    def __post_init__(self) -> None:
        at_least(1, batch_tokens_max=self.batch_tokens_max, port=self.port)


@dataclass(frozen=True)
class Needy:
    model: str


def loom(*argv: str, **environ: str) -> LoomSettings:
    return resolve(LoomSettings, argv, environ, prog="loom", env_prefix="HEDDLE_LOOM_")


def mistake(*argv: str, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        loom(*argv, **environ)
    return str(raised.value)


def test_unset_fields_have_their_defaults() -> None:
    assert loom() == LoomSettings()


def test_flag_wins_over_environment_and_environment_over_default() -> None:
    assert loom(HEDDLE_LOOM_BATCH_TOKENS_MAX="7").batch_tokens_max == 7
    assert loom("--batch-tokens-max", "9", HEDDLE_LOOM_BATCH_TOKENS_MAX="7").batch_tokens_max == 9
    assert loom("--batch-tokens-max=9", HEDDLE_LOOM_BATCH_TOKENS_MAX="no number").batch_tokens_max == 9


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("batch_tokens_max", "8_192", 8192),
        ("wait_s", "1e-3", 0.001),
        ("dtype", "float32", "float32"),
        ("mode", "exact", Mode.EXACT),
        ("cache", "/var/x", Path("/var/x")),
        ("port", "80", 80),
        ("port", "none", None),
        ("listen", "a:1, b:2,", ("a:1", "b:2")),
        ("sizes", "3,4", (3, 4)),
        ("log_level", "a % b", "a % b"),
    ],
)
def test_every_type_reads_the_same_from_flag_and_environment(name: str, text: str, value: Any) -> None:
    from_flag = loom(f"--{name.replace('_', '-')}={text}")
    from_environment = loom(**{f"HEDDLE_LOOM_{name.upper()}": text})
    assert getattr(from_flag, name) == value
    assert getattr(from_environment, name) == value


def test_booleans_are_flags_without_value_that_can_be_taken_back() -> None:
    assert loom("--verbose").verbose
    assert loom(HEDDLE_LOOM_VERBOSE="Yes").verbose
    assert not loom("--no-verbose", HEDDLE_LOOM_VERBOSE="1").verbose


def test_repeated_flag_extends_a_tuple() -> None:
    assert loom("--listen", "a:1", "--listen", "b:2,c:3").listen == ("a:1", "b:2", "c:3")


def test_empty_variable_counts_as_unset() -> None:
    assert loom(HEDDLE_LOOM_BATCH_TOKENS_MAX="") == LoomSettings()


@pytest.mark.parametrize(
    ("argv", "environ", "line"),
    [
        (["--batch-token-max", "3"], {}, "unknown flag --batch-token-max; did you mean --batch-tokens-max?"),
        (["--batch-token-max=3"], {}, "unknown flag --batch-token-max; did you mean --batch-tokens-max?"),
        (["--batch"], {}, "unknown flag --batch"),
        (["model"], {}, "unexpected argument model"),
        (["--port"], {}, "--port: expected one argument"),
        (["--batch-tokens-max", "many"], {}, "--batch-tokens-max: 'many' is not a whole number"),
        (["--wait-s", "nan"], {}, "--wait-s: 'nan' is not a number"),
        (["--wait-s", "inf"], {}, "--wait-s: 'inf' is not a number"),
        (["--batch-tokens-max", "0"], {}, "batch_tokens_max must be at least 1, not 0"),
        (["--dtype", "float23"], {}, "--dtype: 'float23' is not one of auto, float32; did you mean float32?"),
        ([], {"HEDDLE_LOOM_VERBOSE": "maybe"}, "HEDDLE_LOOM_VERBOSE: 'maybe' is neither true nor false"),
        (
            [],
            {"HEDDLE_LOOM_DTYP": "auto"},
            "unknown environment variable HEDDLE_LOOM_DTYP; did you mean HEDDLE_LOOM_DTYPE?",
        ),
    ],
)
def test_a_mistake_is_reported_in_one_line(argv: list[str], environ: dict[str, str], line: str) -> None:
    assert mistake(*argv, **environ) == line


def test_other_variables_are_ignored() -> None:
    assert loom(HEDDLE_ENGINE_MODEL="x", PATH="/bin") == LoomSettings()


def test_variables_of_kubernetes_services_are_ignored() -> None:
    links = {
        "HEDDLE_LOOM_SERVICE_HOST": "10.0.0.1",
        "HEDDLE_LOOM_SERVICE_PORT_GRPC": "50051",
        "HEDDLE_LOOM_PORT": "tcp://10.0.0.1:50051",
        "HEDDLE_LOOM_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "HEDDLE_LOOM_PORT_50051_TCP_ADDR": "10.0.0.1",
    }
    assert loom(**links) == LoomSettings()
    assert loom(**links | {"HEDDLE_LOOM_PORT": "8080"}).port == 8080


def test_a_field_without_default_is_required() -> None:
    with pytest.raises(ConfigurationError, match=r"--model is required \(or HEDDLE_NEEDY_MODEL\)"):
        resolve(Needy, [], {}, prog="needy", env_prefix="HEDDLE_NEEDY_")


def test_load_ends_the_process_with_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load(LoomSettings, ["--nope"], {}, prog="loom", env_prefix="HEDDLE_LOOM_")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "loom: unknown flag --nope\n"


def test_help_shows_comment_variable_and_default_under_their_heading(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        load(LoomSettings, ["--help"], {}, prog="loom", env_prefix="HEDDLE_LOOM_")
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "Weaves 100 % of the threads." in shown
    assert "How loud the process is. [default: info; HEDDLE_LOOM_LOG_LEVEL]" in shown
    addresses, limits = shown.index("Addresses:"), shown.index("Limits:")
    assert addresses < shown.index("Where to listen; several with commas. [default: unix:/tmp/loom; ") < limits
    assert limits < shown.index("Tokens of one batch. [default: 16384; HEDDLE_LOOM_BATCH_TOKENS_MAX]")
    assert "{auto,float32}" in shown
