"""The rules of the tree: who may import whom, and how big things may get."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVICES = ("engine_svc", "http_gateway", "tokenizer_svc")
PACKAGES = (*SERVICES, "protos/heddle")
ALL = (*SERVICES, "protos", "tests")

FILE_LINES_MAX = 300
FUNCTION_LINES_MAX = 60

# Where a service meets the wire; every other file of it is about the domain.
EDGES = {
    *("pod.py", "__main__.py", "servicer.py", "checks.py", "startup.py", "app.py"),
    *("engines.py", "unary_engines.py", "load_report.py", "spans.py"),
}
EDGE_FOLDERS = {"api", "oip", "tasks", "tei"}
# Where a process meets its environment.
# grpc_core sets a variable for gRPC, config_command one for huggingface_hub.
# cache.py and web.py read variables that are the same for every process.
READERS_OF_THE_ENVIRONMENT = {"__main__.py", "settings.py", "cache.py", "web.py", "grpc_core.py", "config_command.py"}

# Beside dot files.
TOP_LEVEL = {
    *("README.md", "LICENSE", "Makefile", "pyproject.toml"),
    *("deploy", "engine_svc", "http_gateway", "protos", "tests", "tokenizer_svc"),
}


def sources(*folders: str) -> list[Path]:
    """Returns the Python files that people write, relative to the root."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT) for path in found if "_pb2" not in path.name)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def imports_of(path: Path) -> Iterator[str]:
    """Yields the full names of imported modules. `from a import b` yields `a` and `a.b`, because `b` may be a
    module."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imports_any(path: Path, *packages: str) -> list[str]:
    return [name for name in imports_of(path) if any(f"{name}.".startswith(f"{package}.") for package in packages)]


def loaded_by(module: str) -> set[str]:
    """Returns the top-level modules that a fresh interpreter loads with this one."""
    script = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_services_never_import_each_other() -> None:
    assert not {
        path: found for path in sources(*SERVICES) if (found := imports_any(path, *set(SERVICES) - {path.parts[0]}))
    }


def test_the_contract_imports_no_service() -> None:
    assert not [path for path in sources("protos") if imports_any(path, *SERVICES)]


def test_domain_files_know_no_transport() -> None:
    domain = [path for path in sources(*SERVICES) if path.name not in EDGES and path.parts[1] not in EDGE_FOLDERS]
    assert not {path: found for path in domain if (found := imports_any(path, "grpc", "heddle.v1"))}


def test_tokenization_knows_no_event_loop() -> None:
    assert not {path: found for path in sources("tokenizer_svc/text") if (found := imports_any(path, "asyncio"))}


def test_only_entry_points_read_the_environment() -> None:
    others = [path for path in sources(*PACKAGES) if path.name not in READERS_OF_THE_ENVIRONMENT]
    assert not [path for path in others if reads_environment(path)]


def reads_environment(path: Path) -> bool:
    attributes = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute))
    return any(ast.unparse(node) in ("os.environ", "os.getenv") for node in attributes)


def test_files_stay_small() -> None:
    lines = {path: len((ROOT / path).read_text().splitlines()) for path in sources(*ALL)}
    assert not {path: count for path, count in lines.items() if count > FILE_LINES_MAX}


def test_functions_stay_small() -> None:
    lines = {(path, node.name): (node.end_lineno or 0) - node.lineno + 1 for path, node in functions()}
    assert not {place: count for place, count in lines.items() if count > FUNCTION_LINES_MAX}


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in sources(*ALL):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def test_every_file_says_what_it_is_for() -> None:
    assert not [path for path in sources(*ALL) if not ast.get_docstring(tree_of(path))]


def test_nothing_is_left_for_later() -> None:
    words = ("FIX" + "ME", "TO" + "DO", "XX" + "X", "NotImplemented" + "Error")
    assert not [path for path in sources(*ALL) if any(word in (ROOT / path).read_text() for word in words)]


def test_every_folder_of_a_package_is_installed() -> None:
    assert not [path for path in sources(*PACKAGES) if not (ROOT / path).with_name("__init__.py").exists()]


def test_the_top_level_holds_nothing_but_what_the_readme_shows() -> None:
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert names <= TOP_LEVEL | {"build", "heddle.egg-info"}  # the last two are what an install leaves


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        ("http_gateway.__main__", {"opentelemetry", "pydantic", "tokenizers", "torch", "transformers", "yaml"}),
        ("tokenizer_svc.__main__", {"opentelemetry", "torch", "transformers"}),
        ("engine_svc.__main__", {"grpc", "numpy", "torch"}),
        ("engine_svc.pod", {"opentelemetry", "torch", "tokenizers", "transformers"}),
        ("engine_svc.scheduler", {"grpc", "torch"}),
        ("heddle.cli.main", {"grpc", "numpy", "pydantic", "yaml"}),
        ("heddle.cli.serve", {"grpc", "numpy", "pydantic", "torch", "yaml"}),
        ("heddle.cli.build_command", {"grpc", "pydantic", "tokenizers", "torch", "yaml"}),
        ("heddle.cli.plan", {"grpc", "torch", "tokenizers", "huggingface_hub"}),
        # What a client gets without any extra is enough.
        ("heddle.client", {"opentelemetry", "torch", "tokenizers", "uvloop", "prometheus_client", "msgspec"}),
    ],
)
def test_a_process_loads_only_what_it_needs(module: str, strangers: set[str]) -> None:
    assert not loaded_by(module) & strangers
