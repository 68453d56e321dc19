"""A fake `tensorrt_llm` that can be imported, in a version of each API, and small checkpoints that it serves."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from transformers import PreTrainedModel

from engine_svc.backends.tensorrt_llm import backend, support
from engine_svc.backends.tensorrt_llm.backend import TensorRTLLMBackend
from engine_svc.backends.tensorrt_llm.support import Api, choose_api
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.sentence_modules import PoolingSetting
from tests.checkpoints import write_old_modules
from tests.engine_svc.backends.tensorrt_llm import fake_llm, fake_models
from tests.engine_svc.backends.tensorrt_llm.fake_llm import Llm, Recorded
from tests.engine_svc.backends.tensorrt_llm.records import bind_call
from tests.engine_svc.models.cases import Case, save
from tests.engine_svc.models.cases_of.decoders import CASES, small

VERSIONS = {Api.ENCODE: "1.4.0rc1", Api.GENERATE: "1.2.1"}

Install = Callable[[str], type[Llm]]
Open = Callable[..., TensorRTLLMBackend]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a version and returns its LLM class, which keeps the instances in `made`."""

    def installed(version: str) -> type[Llm]:
        for module in (support, backend):
            monkeypatch.setattr(module, "installed_version", lambda: version)
        monkeypatch.setattr(fake_llm, "MODEL_CLASS_MAPPING", {})
        api = choose_api(version)
        llm = type("LLM", (Llm,), {"api": api, "made": []})
        for name, content in modules(api, llm).items():
            module = ModuleType(name)
            module.__spec__ = ModuleSpec(name, None, is_package=True)
            module.__path__ = []
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
        return llm

    return installed


@pytest.fixture(params=list(Api), ids=lambda api: VERSIONS[api])
def llm(request: pytest.FixtureRequest, install: Install) -> type[Llm]:
    """Runs the test once for each API."""
    return install(VERSIONS[request.param])


@pytest.fixture
def open_backend() -> Iterator[Open]:
    """Loads the checkpoint of a folder; what is loaded is closed when the test ends."""
    with contextlib.ExitStack() as stack:

        def load_backend(folder: Path, pooling: PoolingSetting = "auto", **settings: Any) -> TensorRTLLMBackend:
            wishes = {"dtype": "auto", "batch_tokens_max": 1024, "batch_items_max": 64, **settings}
            backend = TensorRTLLMBackend(Checkpoint.read(folder, pooling=pooling), **wishes)
            return stack.enter_context(contextlib.closing(backend))

        yield load_backend


def modules(api: Api, llm: type[Llm]) -> dict[str, dict[str, Any]]:
    def register_auto_model(*args: Any) -> Callable[[Any], Any]:
        name = bind_call(api, "register_auto_model", *args)["name"]

        def register(model_class: Any) -> Any:
            fake_llm.MODEL_CLASS_MAPPING[name] = model_class
            return model_class

        return register

    qwen3 = {"Qwen3ForCausalLM": fake_models.Qwen3ForCausalLM}
    if api is Api.ENCODE:
        qwen3["Qwen3ForTextEmbedding"] = fake_models.Qwen3ForTextEmbedding
    masks = "_torch.attention.backends" if api is Api.ENCODE else "_torch.attention_backend"
    models = "_torch.models"
    content: dict[str, dict[str, Any]] = {
        "llmapi": {"KvCacheConfig": lambda **fields: Recorded(api, "KvCacheConfig", fields)},
        "_torch": {},
        models: {},
        f"{models}.modeling_utils": {"register_auto_model": register_auto_model},
        f"{models}.modeling_llama": {"LlamaForCausalLM": fake_models.LlamaForCausalLM},
        f"{models}.modeling_mistral": {"MistralForCausalLM": fake_models.MistralForCausalLM},
        f"{models}.modeling_qwen": {"Qwen2ForCausalLM": fake_models.Qwen2ForCausalLM},
        f"{models}.modeling_qwen3": qwen3,
        **({"_torch.attention": {}} if api is Api.ENCODE else {}),
        masks: {},
        f"{masks}.interface": {"PredefinedAttentionMask": fake_models.PredefinedAttentionMask},
    }
    top = {"LLM": llm, "SamplingParams": lambda **fields: Recorded(api, "SamplingParams", fields)}
    return {"tensorrt_llm": top, **{f"tensorrt_llm.{name}": inside for name, inside in content.items()}}


# Torch serves checkpoints with a window or another rotary scaling, and Gemma.
LEFT_TO_TORCH = (
    "window",
    "window to both sides",
    "later layers with a window",
    "yarn",
    "yarn, as transformers 4 wrote it",
)

SERVED: list[Case] = [
    case for case in CASES if not case.architecture.startswith("gemma") and case.name not in LEFT_TO_TORCH
]
UNSERVED: list[Case] = [case for case in CASES if case not in SERVED]


def write_embedder(folder: Path, model_class: type[PreTrainedModel], **config: Any) -> Path:
    """Writes an embedder that pools by the mean."""
    if model_class.__name__.startswith("Mistral"):
        config = {"sliding_window": None, **config}
    save(small(model_class, **config), folder)
    write_old_modules(folder, ["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True})
    return folder
