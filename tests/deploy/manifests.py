"""The resources that `kubectl apply -k` would send for each folder of deploy/kubernetes. Called by the tests beside it.

kubectl renders the folders, without a cluster. Tests that need it are skipped where it is missing.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

Resource = dict[str, Any]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"

OVERLAYS = tuple(sorted(f"overlays/{path.name}" for path in (KUBERNETES / "overlays").iterdir()))
FOLDERS = (*OVERLAYS, "build", "kserve", "llm-d")
# The overlay `cpu` has these already.
INCLUDED = {"autoscaling", "pod-monitors"}
COMPONENTS = tuple(sorted({path.name for path in (KUBERNETES / "components").iterdir()} - INCLUDED))

SERVICES = ("gateway", "tokenizer", "engine")
NAME = "app.kubernetes.io/name"

KUBECTL = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl")


@cache
def render(folder: str) -> tuple[Resource, ...]:
    """`folder` is relative to deploy/kubernetes."""
    return kustomize(KUBERNETES / folder)


@cache
def render_with(component: str) -> tuple[Resource, ...]:
    """Renders the overlay `cpu` with one more component."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "kubernetes"
        shutil.copytree(KUBERNETES, copy)
        added = copy / "overlays/added"
        added.mkdir()
        content = {"resources": ["../cpu"], "components": [f"../../components/{component}"]}
        (added / "kustomization.yaml").write_text(yaml.safe_dump(content))
        return kustomize(added)


def kustomize(folder: Path) -> tuple[Resource, ...]:
    assert KUBECTL
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(resources: Iterable[Resource], *kinds: str) -> dict[str, Resource]:
    return {one["metadata"]["name"]: one for one in resources if one["kind"] in kinds}


def pod_of(resource: Resource) -> Resource:
    """The spec of the pods of a Deployment or a Job."""
    spec: Resource = resource["spec"]["template"]["spec"]
    return spec


def container_of(resource: Resource) -> Resource:
    (container,) = pod_of(resource)["containers"]
    assert isinstance(container, dict)
    return container


def environment_of(resources: Iterable[Resource], deployment: str) -> dict[str, str]:
    """The variables of a service's container, without those of Secrets. Later sources win, as in Kubernetes."""
    resources = tuple(resources)
    container = container_of(of_kind(resources, "Deployment")[deployment])
    maps = of_kind(resources, "ConfigMap")
    sources = [entry["configMapRef"]["name"] for entry in container.get("envFrom", ()) if "configMapRef" in entry]
    environment = {name: value for source in sources for name, value in maps[source]["data"].items()}
    return environment | {entry["name"]: entry["value"] for entry in container.get("env", ())}
