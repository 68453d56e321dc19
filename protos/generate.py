"""Generates the Python stubs of the .proto files. With `--check` it only compares them with the committed stubs.

The stubs of heddle.v1 lie beside the .proto files. Those of other contracts are inside our own package, such as
heddle/tei/v1: their callers may already have stubs under other names.

Run by `make protos` and `make check`. The compiler is old on purpose and has its own environment: stubs work with the
protobuf version that they were made for and with the next major version. Stubs made for protobuf 6 therefore work in
the services (7) and beside TensorRT-LLM (6).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROTOS = Path(__file__).parent
# Folders of .proto files, and those of their stubs, relative to protos/.
STUBS = {
    "heddle/v1": "heddle/v1",
    "oip/v2": "heddle/oip/v2",
    "tei/v1": "heddle/tei/v1",
    "xds/data/orca/v3": "heddle/orca/v3",
}
TOOLS_VENV = PROTOS.parent / ".venv" / "protoc"
TOOLS = ("grpcio-tools==1.72.2", "protobuf==6.30.2", "mypy-protobuf==3.7.0")
PYTHON = TOOLS_VENV / "bin" / "python"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 if the committed stubs are stale"
    )
    arguments = parser.parse_args()
    install_tools()
    with tempfile.TemporaryDirectory() as folder:
        fresh = compile_stubs(Path(folder))
    stubs = (path for folder in STUBS.values() for path in PROTOS.glob(f"{folder}/*_pb2*.py*"))
    committed = {path.relative_to(PROTOS): path.read_bytes() for path in stubs}
    stale = sorted(str(path) for path in fresh.keys() | committed.keys() if fresh.get(path) != committed.get(path))
    if arguments.check:
        for path in stale:
            print(f"stale: protos/{path} (run `make protos`)", file=sys.stderr)
        return 1 if stale else 0
    for stub in committed.keys() - fresh.keys():
        (PROTOS / stub).unlink()
    for stub, content in fresh.items():
        (PROTOS / stub).write_bytes(content)
    print(f"{len(fresh)} stubs, {len(stale)} changed")
    return 0


def install_tools() -> None:
    stamp = TOOLS_VENV / "installed"
    if stamp.exists() and stamp.read_text() == "\n".join(TOOLS):
        return
    venv.create(TOOLS_VENV, with_pip=True, clear=True)
    # The project's constraints pin the newer versions that the services use.
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *TOOLS], check=True, env=environment)
    stamp.write_text("\n".join(TOOLS))


def compile_stubs(folder: Path) -> dict[Path, bytes]:
    """Returns the contents of all stubs by path relative to protos/. Only files with a service have RPC stubs."""
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
