"""Writes a source tree of TensorRT-LLM that agrees with the records, for the tests of `drift`."""

from pathlib import Path

from engine_svc.backends.tensorrt_llm.support import choose_api
from tests.engine_svc.backends.tensorrt_llm.records import CONTRACT, Callee, Members, Text


def write_package(folder: Path, version: str) -> Path:
    """Writes each record into the last of its files, which a search must find too."""
    classes: dict[tuple[str, str], list[str]] = {}
    lines: dict[str, list[str]] = {"tensorrt_llm/version.py": [f"__version__ = {version!r}"]}
    for record in CONTRACT[choose_api(version)]:
        match record:
            case Text(place, text):
                lines.setdefault(place if place.endswith(".py") else f"{place}/inside.py", []).append(
                    f"NAME = {text!r}"
                )
            case Members(files, name, members):
                classes.setdefault((files[-1], name), []).extend(f"    {member}: int = 0" for member in members)
            case Callee(files, name, parameters):
                class_name, _, function = name.rpartition(".")
                if class_name:
                    method = f"    def {function}(self, {parameters}): ..."
                    classes.setdefault((files[-1], class_name), []).append(method)
                else:
                    lines.setdefault(files[-1], []).append(f"def {function}({parameters}): ...")
    for (file, name), body in classes.items():
        lines.setdefault(file, []).extend([f"class {name}:", *body])
    for file, content in lines.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(content) + "\n")
    return folder
