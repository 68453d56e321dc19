"""Dashboard, alerts and runbook name metrics that exist, agree with each other, and work with a real Prometheus."""

import asyncio
import contextlib
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.metrics import free_port, list_metrics, list_sample_names
from tests.prometheus import ask, prometheus
from tests.test_documents import headings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "monitoring/grafana-dashboard.json"
ALERTS = DEPLOY / "monitoring/alerts.yaml"
RUNBOOK = DEPLOY / "runbook.md"
DOCUMENTS = [
    path for path in sorted(DEPLOY.rglob("*")) if path.suffix in {".md", ".yaml", ".json"} and path.name != "metrics.md"
]

# Of others: Prometheus itself, and cert-manager.
FOREIGN = {"up", "certmanager_certificate_expiration_timestamp_seconds"}
METRIC = re.compile(r"(?<![\w:/.-])(?:heddle|te|process|certmanager)_[a-z_]+\b(?![*/.])")

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool here")

# What a query sees in a dashboard where everything is chosen.
VARIABLES = {"$__rate_interval": "1m", "$model": ".*", "$instance": ".*"}
# Panels without data in a run without a GPU and without errors. In a container with a limit, there is a limit.
EMPTY = {"Memory of the GPU", "Errors of the gateway by code"}
EMPTY_TARGETS = {"heddle_process_memory_max_bytes"}
ANSWER_S_MAX = 30.0


def read_dashboard() -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return dashboard


def list_panels() -> list[dict[str, Any]]:
    return [panel for panel in read_dashboard()["panels"] if panel["type"] != "row"]


def list_queries() -> list[tuple[str, str]]:
    """Each with the title of its panel, and with values for the dashboard's variables."""
    queries = []
    for panel in list_panels():
        for target in panel["targets"]:
            promql = target["expr"]
            for name, value in VARIABLES.items():
                promql = promql.replace(name, value)
            queries.append((panel["title"], promql))
    return queries


def list_alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_metric_exists(path: Path) -> None:
    named = set(METRIC.findall(path.read_text()))
    assert named <= list_sample_names() | FOREIGN


def test_labels_in_queries_exist() -> None:
    known = {label for metric in list_metrics().values() for label in metric.labels}
    known |= {"le", "instance", "namespace", "job", "name"}
    text = ALERTS.read_text() + "".join(promql for _, promql in list_queries())
    grouped = {
        label for group in re.findall(r"(?:by|on|group_left) \(([\w, ]+)\)", text) for label in group.split(", ")
    }
    assert grouped | set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", text)) <= known


def test_panels_do_not_overlap_and_rows_are_full() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in read_dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert taken == {(x, y) for x in range(24) for y in range(max(y for _, y in taken) + 1)}


def test_panels_use_the_chosen_prometheus_and_have_ids() -> None:
    panels = read_dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in list_panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "$datasource"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_an_alert_says_how_bad_it_is_and_what_to_do() -> None:
    sections = headings(RUNBOOK.relative_to(ROOT))
    for alert in list_alerts():
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        document, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert ROOT / document == RUNBOOK
        assert anchor in sections, alert["alert"]


def test_the_runbook_names_alerts_that_exist_and_all_of_them() -> None:
    named = set(re.findall(r"\bHeddle(?:[A-Z][a-z]+)+\b", RUNBOOK.read_text()))
    assert named == {alert["alert"] for alert in list_alerts()}


def test_the_runbook_names_panels_that_exist() -> None:
    shown = {panel["title"] for panel in list_panels()}
    shown |= {target["legendFormat"] for panel in list_panels() for target in panel["targets"]}
    named = set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", re.sub(r"`[^`]*`", "", RUNBOOK.read_text())))
    assert named
    assert named <= shown


@needs_promtool
def test_prometheus_accepts_the_rules() -> None:
    subprocess.run(["promtool", "check", "rules", "--lint=all", "--lint-fatal", ALERTS], check=True)


@needs_promtool
def test_alerts_fire_when_they_should() -> None:
    subprocess.run(["promtool", "test", "rules", DEPLOY / "monitoring/alerts_test.yaml"], check=True)


def test_all_alerts_are_tested() -> None:
    tested = (DEPLOY / "monitoring/alerts_test.yaml").read_text()
    assert not [alert["alert"] for alert in list_alerts() if f'"{alert["alert"]}"' not in tested]


async def send_load(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        while True:
            await http.post("/v1/embeddings", json={"input": ["warp and weft", "loom"]})


async def until_answered(http: httpx.AsyncClient, title: str, promql: str) -> None:
    """Waits until there are enough samples for a rate."""
    answers: list[float] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_S_MAX):
            while all(map(math.isnan, answers := await ask(http, promql))):
                await asyncio.sleep(0.2)
    assert not all(map(math.isnan, answers)), (title, promql)


async def check_rules(http: httpx.AsyncClient) -> None:
    """All have been evaluated without an error, and no alert is active."""
    async with asyncio.timeout(ANSWER_S_MAX):
        while True:
            groups = (await http.get("/api/v1/rules")).json()["data"]["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            if rules and all(rule["health"] != "unknown" for rule in rules):
                break
            await asyncio.sleep(0.2)
    assert not [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"]
    assert not [rule["name"] for rule in rules if rule.get("state") == "firing"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("prometheus"), reason="no Prometheus here")
async def test_a_healthy_run_shows_data_in_every_panel_and_raises_no_alert(tmp_path: Path) -> None:
    engine_port, tokenizer_port = free_port(), free_port()
    async with (
        engine_pod(tmp_path, simulated_fixed_us=2_000, metrics_port=engine_port) as engine,
        tokenizer_pod(tmp_path, engine, metrics_port=tokenizer_port) as tokenizer,
        gateway(tokenizer) as url,
    ):
        targets = {
            "heddle/gateway": url.removeprefix("http://"),
            "heddle/tokenizer": f"127.0.0.1:{tokenizer_port}",
            "heddle/engine": f"127.0.0.1:{engine_port}",
        }
        load = asyncio.create_task(send_load(url))
        try:
            async with prometheus(tmp_path, targets, ALERTS) as http:
                for title, promql in list_queries():
                    if title in EMPTY or any(name in promql for name in EMPTY_TARGETS):
                        await ask(http, promql)
                    else:
                        await until_answered(http, title, promql)
                await check_rules(http)
        finally:
            load.cancel()
