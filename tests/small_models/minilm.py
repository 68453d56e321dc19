"""all-MiniLM-L6-v2 as the frozen body of the small models: its features, a linear head on top of them, the files.

All of `tests.small_models` is made of it. Everything is float32 on the CPU, and the same in every run on one machine.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import BatchEncoding, BertTokenizer, PreTrainedModel

from heddle.checkpoint.model_source import PACKAGED_NAME, locate

# MiniLM's last two layers work towards one mean over the text. Without them its tokens, and the texts of a pair, are
# easier to tell apart.
LAYERS = 4

BATCH = 64
STEPS = 60

M = TypeVar("M", bound=PreTrainedModel)
Texts = Sequence[str] | Sequence[tuple[str, str]]


def body_with_head(model_class: type[M], **config: Any) -> M:
    """MiniLM's first LAYERS under the head of `model_class`, which is new; `config` is laid over MiniLM's."""
    torch.manual_seed(0)
    model: M = model_class.from_pretrained(
        locate(PACKAGED_NAME), dtype=torch.float32, num_hidden_layers=LAYERS, **config
    )
    model.train(mode=False)
    model.requires_grad_(requires_grad=False)
    return model


def minilm_tokenizer() -> BertTokenizer:
    """Without the cut at 128 tokens that the package's file asks for: the models made here take MiniLM's full 512."""
    tokenizer: BertTokenizer = BertTokenizer.from_pretrained(locate(PACKAGED_NAME))
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def encoded(texts: Texts) -> Iterator[BatchEncoding]:
    """Padded batches, in the order of `texts`; texts of like length should stand together."""
    tokenizer = minilm_tokenizer()
    for start in range(0, len(texts), BATCH):
        yield tokenizer(list(texts[start : start + BATCH]), padding=True, return_tensors="pt")


@torch.inference_mode()
def token_features(body: PreTrainedModel, texts: Texts) -> Tensor:
    """The last hidden states of all tokens, padding left out: [tokens, hidden]."""
    states = [(body(**batch).last_hidden_state, batch["attention_mask"].bool()) for batch in encoded(texts)]
    return torch.cat([hidden[real] for hidden, real in states])


@torch.inference_mode()
def pooled_features(body: PreTrainedModel, texts: Texts) -> Tensor:
    """What a sequence classifier's head sees, the pooler's output: [texts, hidden]."""
    return torch.cat([body(**batch).pooler_output for batch in encoded(texts)])


def fit(
    head: torch.nn.Linear,
    features: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    penalty: float = 1e-3,
) -> None:
    """Trains `head` on features [n, hidden] by L-BFGS; `penalty` is on squared weights, of standardised features."""
    mean, scale = features.mean(0), features.std(0)
    standardised = ((features - mean) / scale).clone()
    weight = torch.zeros_like(head.weight, requires_grad=True)
    bias = torch.zeros_like(head.bias, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        value = loss(standardised @ weight.T + bias, targets) + penalty * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call] # torch's
        return value

    optimizer.step(objective)  # type: ignore[no-untyped-call] # torch's
    with torch.no_grad():
        head.weight.copy_(weight / scale)
        head.bias.copy_(bias - head.weight @ mean)


def save(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    minilm_tokenizer().save_pretrained(folder)
    return folder
