"""Generates the Python stubs of the .proto files; `--check` only says whether the committed ones are fresh.

Those of heddle.v1 lie beside their files. Those of tei.v1 go to heddle/tei/v1, inside our own package: many who call
Text Embeddings Inference have stubs of its contract already, and an installed `tei` would be in their way.

Run by `make protos` and `make check`. The compiler lives in an environment of its own, because it is old on purpose:
stubs load with the protobuf runtime they were made for and with the next major one, so those of protobuf 6 serve both
the services (7) and TensorRT-LLM's environment (6).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROTOS = Path(__file__).parent
# By folder of .proto files: the folder of their stubs. Both are relative to protos/.
STUBS = {"heddle/v1": "heddle/v1", "tei/v1": "heddle/tei/v1"}
TOOLS_VENV = PROTOS.parent / ".venv" / "protoc"
TOOLS = ("grpcio-tools==1.72.2", "protobuf==6.30.2", "mypy-protobuf==3.7.0")
PYTHON = TOOLS_VENV / "bin" / "python"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the committed stubs are stale")
    arguments = parser.parse_args()
    install_tools()
    with tempfile.TemporaryDirectory() as folder:
        fresh = compiled(Path(folder))
    stubs = (path for folder in STUBS.values() for path in PROTOS.glob(f"{folder}/*_pb2*.py*"))
    committed = {path.relative_to(PROTOS): path.read_bytes() for path in stubs}
    stale = sorted(str(path) for path in fresh.keys() | committed.keys() if fresh.get(path) != committed.get(path))
    if arguments.check:
        for path in stale:
            print(f"stale: protos/{path} (run `make protos`)", file=sys.stderr)
        return 1 if stale else 0
    for gone in committed.keys() - fresh.keys():
        (PROTOS / gone).unlink()
    for stub, content in fresh.items():
        (PROTOS / stub).write_bytes(content)
    print(f"{len(fresh)} stubs, {len(stale)} changed")
    return 0


def install_tools() -> None:
    stamp = TOOLS_VENV / "installed"
    if stamp.exists() and stamp.read_text() == "\n".join(TOOLS):
        return
    venv.create(TOOLS_VENV, with_pip=True, clear=True)
    # Not the project's constraints: they pin what runs, and this is older.
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *TOOLS], check=True, env=environment)
    stamp.write_text("\n".join(TOOLS))


def compiled(folder: Path) -> dict[Path, bytes]:
    """Contents of all stubs by path relative to protos/; RPC stubs only where a file has a service."""
    sources = {f"{STUBS[home]}/{path.name}": path for home in STUBS for path in sorted(PROTOS.glob(f"{home}/*.proto"))}
    services = [name for name, path in sources.items() if "\nservice " in path.read_text()]
    homes = [f"-I{stubs}={PROTOS / home}" for home, stubs in STUBS.items()]
    protoc: list[str | Path] = [PYTHON, "-m", "grpc_tools.protoc", *homes]
    path = f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    subprocess.run([*protoc, f"--python_out={folder}", f"--pyi_out={folder}", *sources], check=True, env=environment)
    rpc: list[str | Path] = [f"--grpc_python_out={folder}", f"--mypy_grpc_out={folder}"]
    subprocess.run([*protoc, *rpc, *services], check=True, env=environment)
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.py*")}


if __name__ == "__main__":
    sys.exit(main())
