"""The Containerfiles: hadolint accepts them, and what they copy, run and publish exists in the code."""

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from engine_svc.settings import EngineSettings
from tests.deploy.manifests import DEPLOY, KUBERNETES, OVERLAYS, ROOT, container_of, needs_kubectl, of_kind, render
from tokenizer_svc.settings import TokenizerSettings

CONTAINERS = DEPLOY / "containers"
FILES = tuple(sorted(path.name for path in CONTAINERS.glob("*Containerfile")))
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))

Step = tuple[str, str]


def stages_of(file: str) -> dict[str, list[Step]]:
    """Instructions and their arguments by stage, those before the first stage under ""."""
    text = re.sub(r"^\s*#.*\n", "", (CONTAINERS / file).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: dict[str, list[Step]] = {"": []}
    name = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            base, _, name = arguments.partition(" AS ")
            stages[name] = [*stages.get(base, ())]
        stages[name].append((instruction, arguments))
    return stages


def final_stages() -> dict[str, list[Step]]:
    """The stages that become images."""
    stages = [(file, name, steps) for file in FILES for name, steps in stages_of(file).items()]
    return {f"{file}:{name}": steps for file, name, steps in stages if any(step[0] == "ENTRYPOINT" for step in steps)}


def last(steps: list[Step], instruction: str) -> str:
    return [arguments for name, arguments in steps if name == instruction][-1]


IMAGES = final_stages()


def test_there_is_an_image_for_each_tier() -> None:
    assert {name.partition(":")[2] for name in IMAGES} == {
        *("gateway", "tokenizer", "engine-cpu", "engine-cuda", "serve"),
        "",  # of tensorrt-llm.Containerfile, whose last stage has no name
    }


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint")
@pytest.mark.parametrize("file", FILES)
def test_hadolint_finds_nothing(file: str) -> None:
    assert HADOLINT
    done = subprocess.run([HADOLINT, CONTAINERS / file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_a_command_of_the_project_as_another_user_than_root(image: str) -> None:
    steps = IMAGES[image]
    entry = yaml.safe_load(last(steps, "ENTRYPOINT"))  # only the exec form passes signals on
    commands = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert entry[0] in commands
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last(steps, "USER"))
    assert last(steps, "STOPSIGNAL") == "SIGTERM"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_publishes_the_ports_that_it_listens_on(image: str) -> None:
    steps = IMAGES[image]
    exposed = set(last(steps, "EXPOSE").split())
    variables = " ".join(arguments for name, arguments in steps if name == "ENV")
    assert exposed >= set(re.findall(r"(?:_LISTEN=0\.0\.0\.0:|_PORT=)(\d+)", variables))
    for service, settings in (("TOKENIZER", TokenizerSettings()), ("ENGINE", EngineSettings())):
        assert f"HEDDLE_{service}_" not in variables or str(settings.metrics_port) in exposed
    probed = re.findall(r"127\.0\.0\.1:(\d+)", last(steps, "HEALTHCHECK"))
    assert probed
    assert set(probed) <= exposed


@pytest.mark.parametrize("image", IMAGES)
def test_no_image_has_pip_or_a_compiler_that_it_does_not_need(image: str) -> None:
    steps = IMAGES[image]
    commands = [arguments for name, arguments in steps if name == "RUN"]
    assert not [command for command in commands if "pip" in command]
    assert any("gcc" in command for command in commands) == image.endswith("engine-cuda")  # for Triton


@pytest.mark.parametrize("file", FILES)
def test_what_is_copied_exists_and_is_not_ignored(file: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    for steps in stages_of(file).values():
        for instruction, arguments in steps:
            if instruction == "COPY" and "--from" not in arguments:
                for source in [word for word in arguments.split() if not word.startswith("--")][:-1]:
                    assert (ROOT / source).exists()
                    assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), source


@needs_kubectl
@pytest.mark.parametrize("folder", [*OVERLAYS, "llm-d"])
def test_manifests_use_images_that_can_be_built_and_their_ports(folder: str) -> None:
    images = {name.partition(":")[2]: steps for name, steps in IMAGES.items()}
    for deployment in of_kind(render(folder), "Deployment").values():
        container = container_of(deployment)
        image, _, tag = container["image"].rpartition(":")
        exposed = set(last(images[image.rpartition("/")[2]], "EXPOSE").split())
        assert {str(port["containerPort"]) for port in container["ports"]} <= exposed
        assert tag == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_users_in_manifests_are_those_of_the_images() -> None:
    (user,) = {last(steps, "USER").partition(":")[0] for steps in IMAGES.values()}
    for file in ("base/gateway.yaml", "base/tokenizer.yaml", "base/engine.yaml", "build/job.yaml", "llm-d/pods.yaml"):
        assert f"runAsUser: {user}\n" in (KUBERNETES / file).read_text()


def test_the_compose_file_builds_targets_that_exist() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for service in services.values():
        build = service["build"]
        assert build["target"] in stages_of(Path(build["dockerfile"]).name)
        assert (DEPLOY / build["context"] / build["dockerfile"]).exists()
