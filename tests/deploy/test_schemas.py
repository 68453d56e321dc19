"""Every manifest has a valid schema: Kubernetes' own in three versions, and those of the operators that it names."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from kubernetes_validate import utils

from tests.deploy.manifests import COMPONENTS, FOLDERS, KUBERNETES, Resource, needs_kubectl, render, render_with

VERSIONS = ("1.35", "1.36", "1.37")

NATIVE_GROUPS = ("v1", "apps/", "batch/", "networking.k8s.io/", "policy/")


@cache
def custom_schemas() -> dict[str, Any]:
    """Schemas of the projects' resource definitions by apiVersion/kind. They know all names of fields, but check only
    fields that the manifests use."""
    schemas: dict[str, Any] = json.loads((Path(__file__).parent / "crds.json").read_text())
    return schemas


@pytest.fixture(scope="module", autouse=True)
def schemas_are_read_once() -> Iterator[None]:
    """kubernetes_validate reads 2 MB of JSON for each resource."""
    with patch.object(utils, "schema_contents", cache(utils.schema_contents)):
        yield


def is_native(resource: Resource) -> bool:
    return str(resource["apiVersion"]).startswith(NATIVE_GROUPS)


def check(resources: tuple[Resource, ...], version: str) -> None:
    for resource in resources:
        if is_native(resource):
            kubernetes_validate.validate(resource, version, strict=True)
        else:
            jsonschema.validate(resource, custom_schemas()[f"{resource['apiVersion']}/{resource['kind']}"])


@needs_kubectl
@pytest.mark.parametrize("version", VERSIONS)
def test_rendered_manifests_are_valid(version: str) -> None:
    resources = {json.dumps(one, sort_keys=True): one for folder in FOLDERS for one in render(folder)}
    check(tuple(resources.values()), version)


@needs_kubectl
@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_is_valid(component: str) -> None:
    check(render_with(component), VERSIONS[-1])


def test_the_resources_of_the_base_are_valid_by_themselves() -> None:
    files = yaml.safe_load((KUBERNETES / "base/kustomization.yaml").read_text())["resources"]
    resources = [one for file in files for one in yaml.safe_load_all((KUBERNETES / "base" / file).read_text())]
    check(tuple(resources), VERSIONS[-1])


def test_an_unknown_field_is_refused() -> None:
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {},
        "spec": {"hostname": "a.example.com"},
    }
    with pytest.raises(jsonschema.ValidationError, match="hostname"):
        check((route,), VERSIONS[-1])
