"""`heddle serve` loads a model from a bucket or a web server, and never shows its secret."""

import json
import tarfile
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.bucket_servers import BucketServer
from tests.file_server import FileServer
from tests.system.served import Served, served
from tests.system.stand_ins import write_bge_large

pytestmark = pytest.mark.slow

SECRET = "hidden"


def commands_below(pid: int) -> str:
    """Returns the command lines of the child processes of `pid`, which any user of the machine can read."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert children
    return "\n".join(Path(f"/proc/{child}/cmdline").read_text() for child in children)


async def embed(heddle: Served) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=heddle.url, timeout=30) as http:
        (model,) = (await http.get("/v1/models")).json()["data"]
        answer = await http.post("/v1/embeddings", json={"input": "what is a loom?", "model": model["id"]})
        assert answer.status_code == 200, answer.text
        return {"name": model["id"], "vector": answer.json()["data"][0]["embedding"]}


async def test_a_model_is_served_from_an_archive_on_the_web(tmp_path: Path) -> None:
    write_bge_large(tmp_path / "model")
    (tmp_path / "site").mkdir()
    with tarfile.open(tmp_path / "site" / "loom.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "model", "any-name")
    cache = {"HEDDLE_CACHE": str(tmp_path / "cache")}
    flags = ("--dtype", "float32")
    with FileServer(tmp_path / "site") as server:
        address = f"{server.url.replace('://', f'://me:{SECRET}@')}/loom.tar.gz?signature={SECRET}"
        async with served(*flags, HEDDLE_SERVE_MODEL=address, **cache) as heddle:
            from_web = await embed(heddle)
            assert SECRET not in commands_below(heddle.pid)
        assert from_web["name"] == "loom"
        requests = [request.headers.get("range") for request in server.requests]
        assert len(requests) == 2, "one asks what is there, and one downloads"
    async with served("--model", str(tmp_path / "model"), *flags) as heddle:
        from_folder = await embed(heddle)
    assert from_web["vector"] == from_folder["vector"]


async def test_a_config_names_a_bucket_and_its_secret(s3_server: BucketServer, tmp_path: Path) -> None:
    write_bge_large(tmp_path / "model")
    secret = {"aws_access_key_id": "key", "aws_secret_access_key": SECRET, "aws_region": "us-west-2"}
    repository = {"source": "S3", "repo": "s3://models/loom", "runtime_secret_name": "aws"}
    config = {"trt_llm": {"build": {"base_model": "encoder_bert", "checkpoint_repository": repository}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    s3_server.upload(tmp_path / "model", "loom")
    environ = {
        "AWS_ENDPOINT_URL": s3_server.environ["AWS_ENDPOINT_URL"],
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "HEDDLE_CACHE": str(tmp_path / "cache"),
        "TRUSS_SECRET_aws": json.dumps(secret),
    }
    async with served(str(tmp_path / "config.yaml"), **environ) as heddle:
        assert (await embed(heddle))["name"] == "loom"
        assert SECRET not in commands_below(heddle.pid)
