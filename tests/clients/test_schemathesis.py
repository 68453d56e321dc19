"""schemathesis, which makes up requests from /openapi.json: none is answered 5xx, and every answer is as documented."""

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

ROUTES_OF = {
    "simulated": "",  # all of them
    "reranker": "/(v1/|v2/)?rerank$|/predict$|/vertex$|/invocations$|/$",
    "classifier": "/predict$|/vertex$|/invocations$|/$",
    "tagger": "/predict_tokens$|/predict$|/vertex$|/invocations$|/$",
    "sparse_embedder": "/embed_sparse$|/predict$|/vertex$|/invocations$|/$",
}


@pytest.mark.parametrize("kind", ROUTES_OF)
def test_no_request_that_it_finds_is_answered_wrongly(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    served: Served = request.getfixturevalue(kind)
    flags = [f"--checks={','.join(CHECKS)}", "--max-examples=15", "--seed=1", "--no-color", "--continue-on-failure"]
    # Names of models and bodies that are unions of lists: many drafts are thrown away.
    flags.append("--suppress-health-check=filter_too_much")
    if ROUTES_OF[kind]:
        flags.append(f"--include-path-regex={ROUTES_OF[kind]}")
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{served.url}/openapi.json", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout
