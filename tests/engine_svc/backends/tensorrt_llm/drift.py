"""`python -m tests.engine_svc.backends.tensorrt_llm.drift [PATH]`: whether a TensorRT-LLM still has what we call.

PATH is a wheel, a source tree, or a folder that holds the package; without it the installed one is read. Its source is
parsed and never imported, so this needs no GPU. Prints what differs from the records, a line each.
"""

import ast
import importlib.util
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine_svc.backends.tensorrt_llm.support import PACKAGE, choose_api
from heddle.rpc.settings import ConfigurationError
from tests.engine_svc.backends.tensorrt_llm.records import (
    CONTRACT,
    Callee,
    Members,
    Record,
    Text,
    parse_arguments,
    read_defaults,
)

DRIFTED, UNUSABLE = 1, 2

Root = Path | zipfile.Path
Class = ast.ClassDef


class NoPackageError(Exception):
    pass


@dataclass(frozen=True)
class Package:
    root: Root  # holds the folder tensorrt_llm
    _trees: dict[str, ast.Module] = field(default_factory=dict)

    @classmethod
    def at(cls, place: str | None) -> "Package":
        """Raises NoPackageError."""
        if place is None:
            spec = importlib.util.find_spec(PACKAGE)
            if spec is None or not spec.submodule_search_locations:
                raise NoPackageError(f"{PACKAGE} is not installed")
            return cls(Path(spec.submodule_search_locations[0]).parent)
        root: Root = zipfile.Path(place) if zipfile.is_zipfile(place) else Path(place)
        if isinstance(root, Path) and root.name == PACKAGE:
            root = root.parent
        if not (root / PACKAGE).is_dir():
            raise NoPackageError(f"{place} holds no {PACKAGE}")
        return cls(root)

    @property
    def version(self) -> str:
        for node in self.tree(f"{PACKAGE}/version.py").body if self.has(f"{PACKAGE}/version.py") else []:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
                return str(ast.literal_eval(node.value))
        raise NoPackageError(f"{PACKAGE}/version.py has no __version__")

    def has(self, file: str) -> bool:
        return (self.root / file).is_file()

    def tree(self, file: str) -> ast.Module:
        if file not in self._trees:
            self._trees[file] = ast.parse((self.root / file).read_text(encoding="utf-8"))
        return self._trees[file]

    def find_file(self, files: tuple[str, ...]) -> str | None:
        return next((file for file in files if self.has(file)), None)

    def files_below(self, place: str) -> Iterator[str]:
        if self.has(place):
            yield place
        elif (self.root / place).is_dir():
            for inside in (self.root / place).iterdir():
                if inside.is_dir() or inside.name.endswith(".py"):
                    yield from self.files_below(f"{place}/{inside.name}")


def find_drift(package: Package) -> list[str]:
    """Raises ConfigurationError for a version that there are no records of, NoPackageError without one."""
    return [line for record in CONTRACT[choose_api(package.version)] for line in differences(package, record)]


def differences(package: Package, record: Record) -> Iterator[str]:
    match record:
        case Text():
            strings = (ast.walk(package.tree(file)) for file in package.files_below(record.place))
            if not any(
                isinstance(node, ast.Constant) and node.value == record.text for tree in strings for node in tree
            ):
                yield f"{record.place}: {record.text!r} is gone"
        case Members():
            yield from compare_members(package, record)
        case Callee():
            yield from compare_callee(package, record)


def compare_members(package: Package, record: Members) -> Iterator[str]:
    file = package.find_file(record.files)
    found = None if file is None else find_class(package.tree(file), record.name)
    if file is None or found is None:
        yield f"{' or '.join(record.files)}: the class {record.name} is gone"
        return
    members = {name for one in lineage(package.tree(file), found) for name in list_members(one)}
    for name in record.members:
        if name not in members:
            yield f"{file}: {record.name} has no {name}"


def compare_callee(package: Package, record: Callee) -> Iterator[str]:
    file = package.find_file(record.files)
    function = None if file is None else find_function(package.tree(file), record.name)
    if file is None or function is None:
        yield f"{' or '.join(record.files)}: {record.name} is gone"
        return
    actual, recorded = read_defaults(function.args), read_defaults(parse_arguments(record.parameters))
    for name in record.passed:
        if name not in actual and function.args.kwarg is None:
            yield f"{file}: {record.name} does not take {name}"
    for name, default in actual.items():
        if default is None and name not in record.passed:
            yield f"{file}: {record.name} needs {name}"
        elif name in recorded and default != recorded[name]:
            yield f"{file}: {record.name} has {name}={default}, not {recorded[name]}"


def find_class(tree: ast.Module, name: str) -> Class | None:
    return next((node for node in tree.body if isinstance(node, Class) and node.name == name), None)


def lineage(tree: ast.Module, found: Class) -> Iterator[Class]:
    """The class, and those of its bases that are in the same file."""
    yield found
    for base in found.bases:
        parent = find_class(tree, ast.unparse(base).partition("[")[0])
        if parent is not None:
            yield from lineage(tree, parent)


def list_members(found: Class) -> Iterator[str]:
    """Fields, methods, and what is assigned to self."""
    for node in found.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield name
    for inner in ast.walk(found):
        match inner:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def find_function(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    """The function or method, which may be inherited from a class in the same file."""
    class_name, _, function_name = name.rpartition(".")
    found = find_class(tree, class_name) if class_name else None
    bodies = [tree.body] if not class_name else [one.body for one in lineage(tree, found)] if found else []
    functions = (node for body in bodies for node in body if isinstance(node, ast.FunctionDef))
    return next((node for node in functions if node.name == function_name), None)


def main(arguments: list[str]) -> int:
    try:
        package = Package.at(arguments[0] if arguments else None)
        lines = find_drift(package)
    except (NoPackageError, ConfigurationError, OSError) as error:
        print(error)
        return UNUSABLE
    print(f"{PACKAGE} {package.version}: {len(lines)} differences from the records", *lines, sep="\n")
    return DRIFTED if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
