"""Manifests agree with each other and with the code: labels, ports, probes, policies, metrics."""

from pathlib import Path
from typing import Any

import pytest

from tests.deploy.manifests import (
    NAME,
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

pytestmark = needs_kubectl

GRPC_NAMES = {"tokenizer": "heddle.v1.InferenceService", "engine": "heddle.v1.EngineService"}


def ports_of(deployment: Resource) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container_of(deployment)["ports"]}


def service_of(resource: Resource, deployments: dict[str, Resource]) -> str:
    """The Deployment whose pods a Service selects."""
    (name,) = [name for name, one in deployments.items() if selects(resource["spec"]["selector"], one)]
    return name


def selects(labels: dict[str, str], deployment: Resource) -> bool:
    return bool(labels) and labels.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("folder", OVERLAYS)
def test_a_service_selects_one_deployment_and_a_port_of_it(folder: str) -> None:
    resources = render(folder)
    deployments = of_kind(resources, "Deployment")
    for service in of_kind(resources, "Service").values():
        ports = ports_of(deployments[service_of(service, deployments)])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()


@pytest.mark.parametrize("folder", OVERLAYS)
def test_settings_name_services_that_exist_and_ports_that_they_have(folder: str) -> None:
    resources = render(folder)
    services = of_kind(resources, "Service")
    for variable, deployment in [("HEDDLE_GATEWAY_TOKENIZERS", "gateway"), ("HEDDLE_TOKENIZER_ENGINES", "tokenizer")]:
        host, _, port = environment_of(resources, deployment)[variable].removeprefix("dns:///").rpartition(":")
        assert services[host]["spec"]["clusterIP"] == "None"  # streams need the address of every pod
        assert [int(port)] == [one["port"] for one in services[host]["spec"]["ports"]]


def test_single_calls_go_through_a_service_that_has_an_address() -> None:
    resources = render_with("unary")
    host, _, port = environment_of(resources, "tokenizer")["HEDDLE_TOKENIZER_ENGINES"].rpartition(":")
    service = of_kind(resources, "Service")[host]
    assert "clusterIP" not in service["spec"]
    assert service["spec"]["ports"][0]["port"] == int(port)


@pytest.mark.parametrize("folder", OVERLAYS)
def test_probes_ask_at_open_ports_for_services_that_exist(folder: str) -> None:
    for name, deployment in of_kind(render(folder), "Deployment").items():
        container, ports = container_of(deployment), ports_of(deployment)
        probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
        if name == "gateway":
            assert probes["liveness"]["httpGet"]["path"] == "/live"
            assert probes["readiness"]["httpGet"]["path"] == "/ready"
            assert {probe["httpGet"]["port"] for probe in probes.values()} == {"operations"} <= ports.keys()
        else:
            assert probes["liveness"]["grpc"]["service"] == ""
            assert probes["readiness"]["grpc"]["service"] == GRPC_NAMES[name]
            assert {probe["grpc"]["port"] for probe in probes.values()} == {ports["grpc"]}


def test_with_tls_the_probes_use_sockets_that_the_services_listen_on() -> None:
    resources = render_with("access")
    deployments = of_kind(resources, "Deployment")
    for name, full_name in GRPC_NAMES.items():
        listens = environment_of(resources, name)[f"HEDDLE_{name.upper()}_LISTEN"].split(",")
        for kind in ("startup", "liveness", "readiness"):
            probe = container_of(deployments[name])[f"{kind}Probe"]
            assert "grpc" not in probe
            command, address, service = probe["exec"]["command"]
            assert command == "heddle-health"
            assert address in listens
            assert service in {"", full_name}


def test_pods_with_a_built_model_have_no_way_out_of_the_cluster() -> None:
    assert "downloads" in of_kind(render("overlays/cpu"), "NetworkPolicy")
    for policy in of_kind(render_with("built-model"), "NetworkPolicy").values():
        for rule in policy["spec"].get("egress", ()):
            assert not any(peer.get("ipBlock", {}).get("cidr", "").endswith("/0") for peer in rule["to"])


def test_with_tls_every_file_in_the_settings_is_mounted() -> None:
    resources = render_with("access")
    for name, deployment in of_kind(resources, "Deployment").items():
        prefix = f"HEDDLE_{name.upper()}_"
        files = [
            Path(value)
            for variable, value in environment_of(resources, name).items()
            if variable.startswith(prefix) and value.startswith("/etc/")
        ]
        assert files
        assert {str(file.parent) for file in files} <= {
            mount["mountPath"] for mount in container_of(deployment)["volumeMounts"] if "subPath" not in mount
        }  # a subPath would never be updated


@pytest.mark.parametrize("folder", OVERLAYS)
def test_pods_are_restricted_and_write_only_to_volumes(folder: str) -> None:
    for deployment in of_kind(render(folder), "Deployment").values():
        pod, container = pod_of(deployment), container_of(deployment)
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert container["resources"].keys() == {"requests", "limits"}


@pytest.mark.parametrize("folder", OVERLAYS)
def test_every_deployment_has_a_budget_a_policy_and_an_account(folder: str) -> None:
    resources = render(folder)
    for kind in ("PodDisruptionBudget", "NetworkPolicy", "ServiceAccount"):
        assert of_kind(resources, kind).keys() >= set(SERVICES)
    for name, deployment in of_kind(resources, "Deployment").items():
        assert pod_of(deployment)["serviceAccountName"] == name
        budget = of_kind(resources, "PodDisruptionBudget")[name]
        assert selects(budget["spec"]["selector"]["matchLabels"], deployment)
        for spread in pod_of(deployment)["topologySpreadConstraints"]:
            assert selects(spread["labelSelector"]["matchLabels"], deployment)


@pytest.mark.parametrize("folder", OVERLAYS)
@pytest.mark.parametrize(
    ("source", "target", "port"), [("gateway", "tokenizer", 50051), ("tokenizer", "engine", 50052)]
)
def test_policies_allow_the_way_of_a_request_and_no_short_cut(folder: str, source: str, target: str, port: int) -> None:
    policies = of_kind(render(folder), "NetworkPolicy")
    assert port in allowed(policies[source]["spec"]["egress"], "to", target)
    assert port in allowed(policies[target]["spec"]["ingress"], "from", source)
    assert not allowed(policies["gateway"]["spec"]["egress"], "to", "engine")
    assert "Egress" in policies["engine"]["spec"]["policyTypes"]
    assert not allowed(policies["engine"]["spec"]["ingress"], "from", "gateway")


def allowed(rules: list[dict[str, Any]], way: str, pod: str) -> set[int]:
    peers = {"podSelector": {"matchLabels": {NAME: pod}}}
    return {port["port"] for rule in rules if peers in rule.get(way, ()) for port in rule["ports"]}


@pytest.mark.parametrize("folder", OVERLAYS)
def test_prometheus_may_reach_the_ports_that_it_scrapes(folder: str) -> None:
    resources = render(folder)
    (monitor,) = of_kind(resources, "PodMonitor").values()
    for name, deployment in of_kind(resources, "Deployment").items():
        assert selects(monitor["spec"]["selector"]["matchLabels"], deployment)
        ports = ports_of(deployment)
        (scraped,) = [ports[one["port"]] for one in monitor["spec"]["podMetricsEndpoints"] if one["port"] in ports]
        policy = of_kind(resources, "NetworkPolicy")["observability-and-dns"]["spec"]
        (selected,) = policy["podSelector"]["matchExpressions"]
        assert (selected["key"], name in selected["values"]) == (NAME, True)
        assert {"port": scraped} in policy["ingress"][0]["ports"]


@pytest.mark.parametrize("folder", OVERLAYS)
def test_what_is_scaled_exists_and_has_no_fixed_number(folder: str) -> None:
    resources = render(folder)
    for scaled in of_kind(resources, "ScaledObject").values():
        assert "replicas" not in of_kind(resources, "Deployment")[scaled["spec"]["scaleTargetRef"]["name"]]["spec"]


@pytest.mark.parametrize("folder", ["overlays/mesh", "overlays/mesh-linkerd"])
def test_routes_lead_to_ports_of_services(folder: str) -> None:
    resources = render(folder)
    services = of_kind(resources, "Service")
    routes = of_kind(resources, "HTTPRoute", "GRPCRoute").values()
    backends = [ref for route in routes for rule in route["spec"]["rules"] for ref in rule.get("backendRefs", ())]
    assert backends
    for backend in backends:
        assert backend["port"] in [port["port"] for port in services[backend["name"]]["spec"]["ports"]]


def test_istio_takes_the_streams_as_tcp_and_calls_as_http() -> None:
    services = of_kind(render("overlays/mesh"), "Service")
    protocols = {name: service["spec"]["ports"][0]["appProtocol"] for name, service in services.items()}
    assert protocols == {
        "gateway": "http",
        "tokenizers": "tcp",
        "engines": "tcp",
        "tokenizer-grpc": "kubernetes.io/h2c",
    }


def test_the_pool_of_llm_d_selects_pods_that_say_what_they_are() -> None:
    resources = render("llm-d")
    (pool,) = of_kind(resources, "InferencePool").values()
    (pods,) = of_kind(resources, "Deployment").values()
    assert selects(pool["spec"]["selector"]["matchLabels"], pods)
    assert pods["spec"]["template"]["metadata"]["labels"]["llm-d.ai/engine-type"] == "heddle"
    assert [port["number"] for port in pool["spec"]["targetPorts"]] == [ports_of(pods)["http"]]
