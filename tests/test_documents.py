"""The README and the other documents: their links lead somewhere, and what they name exists."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_svc.settings import EngineSettings
from heddle.checkpoint.cache import VARIABLE as CACHE_VARIABLE
from heddle.cli.build_settings import BuildSettings
from heddle.cli.plan import PlanSettings
from heddle.cli.serve_settings import ServeSettings
from http_gateway.settings import GatewaySettings
from tokenizer_svc.settings import TokenizerSettings

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in ROOT.rglob("*.md")
    if not any(part == "build" or part.startswith(".") for part in path.relative_to(ROOT).parts)
)
README_LINES_MAX = 200

SETTINGS = {
    "HEDDLE_BUILD_": BuildSettings,
    "HEDDLE_ENGINE_": EngineSettings,
    "HEDDLE_GATEWAY_": GatewaySettings,
    "HEDDLE_PLAN_": PlanSettings,
    "HEDDLE_SERVE_": ServeSettings,
    "HEDDLE_TOKENIZER_": TokenizerSettings,
}
NAMES = {(prefix, field.name) for prefix, settings in SETTINGS.items() for field in dataclasses.fields(settings)}
VARIABLES = {prefix + name.upper() for prefix, name in NAMES}
FLAGS = {f"--{name.replace('_', '-')}" for _, name in NAMES}
# Of `heddle`, `pip install` and `python -m tests.gpu`; of docker and kubectl.
OTHER_FLAGS = {"--help", "--pre", "--dry-run"} | {
    *("--build", "--build-arg", "--file", "--format", "--profile", "--tag", "--target"),
    *("--for", "--from-file", "--timeout"),
}

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"#+ (.+)")
VARIABLE = re.compile(r"\bHEDDLE_[A-Z_]+\b")
KUBECTL = re.compile(r"\bkubectl\b[^`\n]*")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def links(document: Path) -> Iterator[tuple[Path, str]]:
    """The linked file and the heading in it, "" for none. Links to other sites are left out."""
    for target in LINK.findall((ROOT / document).read_text()):
        if "://" not in target:
            path, _, heading = target.partition("#")
            yield (ROOT / document.parent / path if path else ROOT / document), heading


def headings(document: Path) -> set[str]:
    """Returns the anchors that GitHub gives to headings."""
    titles = (match[1] for line in document.read_text().splitlines() if (match := HEADING.fullmatch(line)))
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    assert not [str(path) for path, _ in links(document) if not path.exists()]
    assert not [heading for path, heading in links(document) if heading and heading not in headings(path)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_variables_and_flags_are_settings(document: Path) -> None:
    text = (ROOT / document).read_text()
    assert set(VARIABLE.findall(text)) <= VARIABLES | SETTINGS.keys() | {CACHE_VARIABLE}
    if document.parts[0] != "tests":  # benchmarks have flags of their own
        assert set(FLAG.findall(KUBECTL.sub("", text))) <= FLAGS | OTHER_FLAGS


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES_MAX
