"""The settings in manifests, images and the compose file exist, are valid, and fit each other."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine_svc.settings import EngineSettings
from heddle.checkpoint.cache import VARIABLE as CACHE_VARIABLE
from heddle.cli.build_settings import BuildSettings
from heddle.cli.serve_settings import ServeSettings
from heddle.cli.supervisor import Limits
from heddle.rpc.keys import ApiKeys
from heddle.rpc.settings import resolve
from heddle.rpc.stream import HEARTBEAT_S
from http_gateway.settings import GatewaySettings
from tests.deploy.manifests import (
    COMPONENTS,
    DEPLOY,
    KUBERNETES,
    OVERLAYS,
    SERVICES,
    Resource,
    container_of,
    environment_of,
    needs_kubectl,
    of_kind,
    pod_of,
    render,
    render_with,
)
from tokenizer_svc.settings import TokenizerSettings

CLASSES = {"gateway": GatewaySettings, "tokenizer": TokenizerSettings, "engine": EngineSettings}
CLOSE_S = 10.0

UNITS = {"Mi": 1 << 20, "Gi": 1 << 30}


def load(service: str, environment: dict[str, str]) -> Any:
    """Raises ConfigurationError for an unknown or invalid variable."""
    return resolve(CLASSES[service], [], environment, prog=service, env_prefix=f"HEDDLE_{service.upper()}_")


def settings_of(resources: tuple[Resource, ...]) -> dict[str, Any]:
    return {service: load(service, environment_of(resources, service)) for service in SERVICES}


def read_bytes(quantity: str) -> int:
    match = re.fullmatch(r"(\d+)(Mi|Gi)", quantity)
    assert match, quantity
    return int(match[1]) * UNITS[match[2]]


@needs_kubectl
@pytest.mark.parametrize("folder", OVERLAYS)
def test_services_accept_the_settings_of_each_overlay(folder: str) -> None:
    settings = settings_of(render(folder))
    assert settings["tokenizer"].model == settings["engine"].model
    assert settings["tokenizer"].revision == settings["engine"].revision


@needs_kubectl
@pytest.mark.parametrize("component", COMPONENTS)
def test_services_accept_the_settings_of_each_component(component: str) -> None:
    settings = settings_of(render_with(component))
    assert settings["tokenizer"].model == settings["engine"].model


def test_every_variable_in_a_file_belongs_to_a_service() -> None:
    classes: dict[str, Any] = {"SERVE": ServeSettings, **{service.upper(): cls for service, cls in CLASSES.items()}}
    settings = {f"HEDDLE_{name}_{one.name.upper()}" for name, cls in classes.items() for one in dataclasses.fields(cls)}
    files = [path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".md"]
    named = {name for path in files for name in re.findall(r"\bHEDDLE_[A-Z_]+\b", path.read_text())}
    assert not named - settings - {CACHE_VARIABLE}


@needs_kubectl
@pytest.mark.parametrize("folder", OVERLAYS)
def test_a_pod_is_given_the_time_that_its_service_takes_to_stop(folder: str) -> None:
    resources = render(folder)
    settings = settings_of(resources)
    for service, deployment in of_kind(resources, "Deployment").items():
        delay_s, drain_s = settings[service].drain_delay_s, settings[service].drain_s_max
        assert delay_s >= 5  # Services and routes are told while the pod stops, not before
        assert pod_of(deployment)["terminationGracePeriodSeconds"] >= delay_s + drain_s + CLOSE_S
        assert drain_s >= settings["gateway"].timeout_s  # the slowest accepted request ends in time


@needs_kubectl
@pytest.mark.parametrize("folder", OVERLAYS)
def test_memory_limits_leave_room_for_what_the_settings_allow(folder: str) -> None:
    resources = render(folder)
    settings = settings_of(resources)
    gateway, tokenizer = settings["gateway"], settings["tokenizer"]
    needed = {
        "gateway": gateway.bodies_bytes_max + gateway.waiting_bodies_bytes_max + gateway.answers_bytes_max,
        "tokenizer": tokenizer.queue_bytes_max + tokenizer.answers_bytes_max,
    }
    deployments = of_kind(resources, "Deployment")
    for service, least in needed.items():
        assert read_bytes(container_of(deployments[service])["resources"]["limits"]["memory"]) > 1.5 * least


@needs_kubectl
def test_idle_timeouts_of_a_mesh_are_far_above_the_heartbeats() -> None:
    rules = of_kind(render("overlays/mesh"), "DestinationRule").values()
    pools = [pool for rule in rules for pool in rule["spec"]["trafficPolicy"]["connectionPool"].values()]
    assert pools
    assert {pool["idleTimeout"] for pool in pools} == {"1h"}
    assert HEARTBEAT_S < 360


def test_the_job_passes_flags_that_heddle_build_has() -> None:
    job = yaml.safe_load((KUBERNETES / "build/job.yaml").read_text())
    container = container_of(job)
    assert container["image"] == "heddle/serve"  # a build needs the libraries of engine and tokenizer
    assert container["command"] == ["heddle", "build"]
    settings = resolve(BuildSettings, container["args"], {}, prog="heddle build", env_prefix="HEDDLE_BUILD_")
    assert str(settings.output).startswith("/models/")


@pytest.mark.parametrize("file", ["kserve/serving-runtime.yaml", "llm-d/pods.yaml"])
def test_heddle_serve_accepts_what_whole_pods_pass(file: str) -> None:
    for resource in yaml.safe_load_all((KUBERNETES / file).read_text()):
        container = container_of(resource) if resource["kind"] == "Deployment" else resource["spec"]["containers"][0]
        own = {entry["name"]: entry["value"] for entry in container["env"]}
        resolve(ServeSettings, container.get("args", ()), own, prog="heddle serve", env_prefix="HEDDLE_SERVE_")
        stopping = [(settings.drain_delay_s, settings.drain_s_max) for settings in (load(one, own) for one in SERVICES)]
        assert all(sum(seconds) + CLOSE_S <= Limits().stop_s_max for seconds in stopping)


def test_the_compose_file_passes_valid_settings() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        variables = {key: str(value) for key, value in service["environment"].items()}
        load(name.partition("-")[0], variables)
        stop_s = float(service["stop_grace_period"].removesuffix("s"))
        assert stop_s >= load(name.partition("-")[0], variables).drain_s_max + CLOSE_S
        assert service["read_only"]


def test_the_example_of_a_key_file_can_be_read(tmp_path: Path) -> None:
    secrets = of_kind(yaml.safe_load_all((KUBERNETES / "components/access/example-secrets.yaml").read_text()), "Secret")
    file = tmp_path / "callers"
    file.write_text(secrets["heddle-keys"]["stringData"]["callers"])
    assert ApiKeys.load((), file)
