"""`heddle serve config.yaml` with real services: what the file says is what clients see."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from heddle.checkpoint.model_source import packaged_folder
from tests.system.served import served

pytestmark = pytest.mark.slow

CONFIG = {
    "model_name": "my-minilm",
    "python_version": "py311",
    "environment_variables": {"AUTO_TRUNCATE": False, "DEFAULT_PROMPT": "query: "},
    "resources": {"accelerator": "L4"},
    "trt_llm": {
        "build": {
            "base_model": "encoder_bert",
            "checkpoint_repository": {"source": "LOCAL", "repo": "models/minilm"},
            "max_num_tokens": 256,
            "quantization_type": "no_quant",
        },
        "runtime": {"webserver_default_route": "/v1/embeddings"},
    },
}


async def test_a_truss_config_is_served_as_it_says(tmp_path: Path) -> None:
    packaged = packaged_folder()
    assert packaged is not None
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "minilm").symlink_to(packaged)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    async with served(str(path), "--dtype", "float32") as heddle, httpx.AsyncClient(base_url=heddle.url) as http:

        async def post(route: str, status: int = 200, **body: Any) -> Any:
            response = await http.post(route, json=body)
            assert response.status_code == status, response.text
            return response.json()

        answer = await post("/v1/embeddings", input="what is a loom?")
        assert answer["model"] == "my-minilm"
        assert await post("/", input="what is a loom?") == answer
        assert await post("/environments/production/predict", input="what is a loom?") == answer
        (plain,) = await post("/embed", inputs="what is a loom?", prompt_name="default")
        assert plain == answer["data"][0]["embedding"]
        await post("/embed", 413, inputs="loom " * 300)
        info = (await http.get("/info")).json()
        assert (info["model_dtype"], info["max_batch_tokens"], info["auto_truncate"]) == ("float32", 256, False)
