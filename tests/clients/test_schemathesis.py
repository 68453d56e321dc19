"""schemathesis generates requests from /openapi.json. None may get a 5xx, and every answer must match the schema.

Each run generates other requests. A failure prints the seed that repeats it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.served import Served

pytestmark = pytest.mark.slow

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)

# A request that breaks the schema may also be over a limit (413) or for another kind of model (424).
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 404, 405, 413, 422, 424]
"""

SECONDS_MAX = {
    "simulated": 23,
    "reranker": 9,
    "classifier": 9,
    "tagger": 9,
    "sparse_embedder": 9,
    "multi_vector_embedder": 9,
}
ROUTES_OF = {
    "simulated": "",  # all of them
    "reranker": "/(v1/|v2/)?rerank$|/(v1/)?score$|/classify$|/pooling$|/predict$|/vertex$|/invocations$|/$",
    "classifier": "/predict$|/classify$|/pooling$|/vertex$|/invocations$|/$",
    "tagger": "/predict_tokens$|/pooling$|/predict$|/vertex$|/invocations$|/$",
    "sparse_embedder": "/embed_sparse$|/predict$|/vertex$|/invocations$|/$",
    "multi_vector_embedder": "/embed_all$|/pooling$|/predict$|/vertex$|/invocations$|/$",
}


@pytest.mark.parametrize("kind", ROUTES_OF)
def test_generated_requests_are_answered_as_the_schema_says(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    served: Served = request.getfixturevalue(kind)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    flags = [f"--checks={','.join(CHECKS)}", f"--max-time={SECONDS_MAX[kind]}", "--no-color", "--continue-on-failure"]
    # schemathesis discards many drafts of model names and of bodies that are unions of lists.
    flags.append("--suppress-health-check=filter_too_much")
    if ROUTES_OF[kind]:
        flags.append(f"--include-path-regex={ROUTES_OF[kind]}")
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{served.url}/openapi.json", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout
