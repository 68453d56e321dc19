"""The prompts of rerankers that were made of decoders. The edge finds the model's own at start; the task of `Rerank`
puts query and document into it. Cross-encoders have none: the tokenizer knows how to join a pair for them.
"""

import logging
import re
from dataclasses import dataclass

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.language_models import (
    AUTO,
    KNOWN_RERANKERS,
    KnownReranker,
    find_known_reranker,
    join_names,
    uses_score_tokens,
)
from heddle.rpc.errors import HeddleError
from tokenizer_svc.text.framed import Framed, Piece, Role
from tokenizer_svc.text.sequence import Options
from tokenizer_svc.text.tokenization import Tokenizer

NONE = "none"

SLOT = re.compile(r"\{(query|document|instruction)\}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RerankPrompt:
    """Pieces with the slots {query}, {document} and, in some, {instruction}; each is tokenized by itself."""

    pieces: tuple[str, ...]
    instruction: str = ""  # where the request has none
    instruction_form: str = "{instruction}"  # how one that is not empty stands in its slot

    @property
    def takes_instruction(self) -> bool:
        return any("{instruction}" in piece for piece in self.pieces)

    def framed(self, query: str, document: str, instruction: str = "") -> Framed:
        told = instruction or self.instruction
        told = self.instruction_form.replace("{instruction}", told) if told else ""
        slots = {
            "query": (Role.QUERY, query),
            "document": (Role.DOCUMENT, document),
            "instruction": (Role.FRAME, told),
        }
        return Framed(tuple(filled(piece, slots) for piece in self.pieces))


PROMPTS = {
    # The model's card, and the one of its conversion tomaarsen/Qwen3-Reranker-0.6B-seq-cls.
    "qwen3-reranker": RerankPrompt(
        pieces=(
            (
                "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
                'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
            ),
            "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",
            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
        instruction="Given a web search query, retrieve relevant passages that answer the query",
    ),
    # mxbai_rerank_v2.py of the package mxbai-rerank, which the models were trained with.
    "mxbai-rerank-v2": RerankPrompt(
        pieces=(
            (
                "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
                "<|im_start|>user\n"
            ),
            "{instruction}query: {query}",
            "\n",
            "document: {document}",
            "\n",
            (
                "You are a search relevance expert who evaluates how well documents match search queries. For each "
                "query-document pair, carefully analyze the semantic relationship between them, then provide your "
                "binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
            ),
            "<|im_end|>\n<|im_start|>assistant\n",
        ),
        instruction_form="instruction: {instruction}\n",
    ),
    # The model's card; its instruction is the prompt that FlagEmbedding takes.
    "bge-reranker-gemma": RerankPrompt(
        pieces=("A: {query}", "\n", "B: {document}", "\n", "{instruction}"),
        instruction="Given a query A and a passage B, determine whether the passage contains an answer to the query by "
        "providing a prediction of either 'Yes' or 'No'.",
    ),
}

DECODERS = frozenset({*KNOWN_RERANKERS, "gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen3_moe"})


def prompt_for(checkpoint: Checkpoint, tokenizer: Tokenizer, setting: str) -> RerankPrompt | None:
    """None where pairs are joined by the tokenizer. Raises CheckpointError where the setting does not fit the model."""
    if checkpoint.kind is not ModelKind.RERANKER:
        if setting not in (AUTO, NONE):
            kind = checkpoint.kind.replace("_", " ")
            raise CheckpointError(f"a rerank template is set, but {checkpoint.name} is of the kind {kind}")
        return None
    prompt = recognised(checkpoint) if setting == AUTO else stated(setting)
    if prompt is not None:
        check_room(prompt, tokenizer)
    return prompt


def stated(setting: str) -> RerankPrompt | None:
    """The prompt that a name stands for, or a text with slots. Raises ValueError for what is neither."""
    if setting in (AUTO, NONE):
        return None
    if setting in PROMPTS:
        return PROMPTS[setting]
    slots = SLOT.findall(setting)
    if not slots:
        names = ", ".join((AUTO, NONE, *PROMPTS))
        raise ValueError(
            f"the rerank template {setting!r} is none of {names}, nor a text with {{query}} and {{document}}"
        )
    for slot in ("query", "document"):
        if slots.count(slot) != 1:
            raise ValueError(f"a rerank template must hold {{{slot}}} once, not {slots.count(slot)} times")
    if slots.count("instruction") > 1:
        raise ValueError("a rerank template must not hold {instruction} more than once")
    return RerankPrompt((setting,))


def recognised(checkpoint: Checkpoint) -> RerankPrompt | None:
    """The prompt that the checkpoint's model was trained with, as far as its configuration tells."""
    if checkpoint.config.get("model_type") not in DECODERS:
        return None
    names = f"{join_names(checkpoint.config, checkpoint.name, checkpoint.folder)} {checkpoint.folder}"
    known = find_known_reranker(checkpoint.config, names) or known_by_score(checkpoint)
    if known is None:
        log.warning(
            "%s is a reranker made of a decoder, whose prompt is not known: query and document are put end to end; "
            "rerank_template can state the prompt",
            checkpoint.name,
        )
        return None
    log.info("%s reranks with the prompt %s", checkpoint.name, known.name)
    return PROMPTS[known.name]


def known_by_score(checkpoint: Checkpoint) -> KnownReranker | None:
    """A language model that is scored by the tokens of a known reranker of its type needs no name."""
    known, score = KNOWN_RERANKERS.get(str(checkpoint.config.get("model_type"))), checkpoint.logit_score
    return known if known and score and uses_score_tokens(known, score, checkpoint.folder) else None


def check_room(prompt: RerankPrompt, tokenizer: Tokenizer) -> None:
    [[empty]] = tokenizer.encode([([prompt.framed("", "")], Options())])
    if isinstance(empty, HeddleError):
        raise CheckpointError(f"the rerank template cannot be used: {empty.message}")
    if empty.tokens >= tokenizer.sequence_tokens_max:
        raise CheckpointError(
            f"the rerank template has {empty.tokens} tokens, which leaves no room in {tokenizer.sequence_tokens_max}"
        )


def filled(piece: str, slots: dict[str, tuple[Role, str]]) -> Piece:
    """Once, from left to right: what a text holds in braces is text."""
    parts = SLOT.split(piece)  # frame, slot, frame, slot, …, frame
    roles = [slots[part] if index % 2 else (Role.FRAME, part) for index, part in enumerate(parts)]
    return tuple((role, text) for role, text in roles if text or role is not Role.FRAME)
