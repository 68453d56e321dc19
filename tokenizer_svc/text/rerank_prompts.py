"""The prompts of rerankers that are decoders: which prompt a model was trained with, and how a pair fills it.

Cross-encoders have no prompt, because their tokenizer joins a query and a document by itself.
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
from tokenizer_svc.text.inputs import Options, PromptedPair, Role, Segment
from tokenizer_svc.text.tokenizer import Tokenizer

NONE = "none"

SLOT = re.compile(r"\{(query|document|instruction)\}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RerankPrompt:
    """A prompt with the slots {query}, {document} and, in some, {instruction}."""

    segments: tuple[str, ...]  # each is tokenized on its own
    instruction: str = ""  # the default
    instruction_format: str = "{instruction}"  # how an instruction that is not empty is written

    @property
    def takes_instruction(self) -> bool:
        return any("{instruction}" in segment for segment in self.segments)

    def fill(self, query: str, document: str, instruction: str = "") -> PromptedPair:
        instruction = instruction or self.instruction
        if instruction:
            instruction = self.instruction_format.replace("{instruction}", instruction)
        slots = {
            "query": (Role.QUERY, query),
            "document": (Role.DOCUMENT, document),
            "instruction": (Role.PROMPT, instruction),
        }
        return PromptedPair(tuple(_fill_segment(segment, slots) for segment in self.segments))


PROMPTS = {
    # The model's card, and the one of its conversion tomaarsen/Qwen3-Reranker-0.6B-seq-cls.
    "qwen3-reranker": RerankPrompt(
        segments=(
            (
                "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
                'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
            ),
            "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",
            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
        instruction="Given a web search query, retrieve relevant passages that answer the query",
    ),
    # mxbai_rerank_v2.py of the package mxbai-rerank.
    "mxbai-rerank-v2": RerankPrompt(
        segments=(
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
        instruction_format="instruction: {instruction}\n",
    ),
    # The model's card; its instruction is FlagEmbedding's prompt.
    "bge-reranker-gemma": RerankPrompt(
        segments=("A: {query}", "\n", "B: {document}", "\n", "{instruction}"),
        instruction="Given a query A and a passage B, determine whether the passage contains an answer to the query by "
        "providing a prediction of either 'Yes' or 'No'.",
    ),
}

DECODERS = frozenset({*KNOWN_RERANKERS, "gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen3_moe"})


def choose_prompt(checkpoint: Checkpoint, tokenizer: Tokenizer, setting: str) -> RerankPrompt | None:
    """The prompt of a model under the setting rerank_template. None if the tokenizer joins pairs. Raises
    CheckpointError if the setting does not fit the model."""
    if checkpoint.kind is not ModelKind.RERANKER:
        if setting not in (AUTO, NONE):
            kind = checkpoint.kind.replace("_", " ")
            raise CheckpointError(f"a rerank template is set, but {checkpoint.name} is of the kind {kind}")
        return None
    prompt = _recognise_prompt(checkpoint) if setting == AUTO else parse_template(setting)
    if prompt is not None:
        _check_room(prompt, tokenizer)
    return prompt


def parse_template(setting: str) -> RerankPrompt | None:
    """Reads the name of a prompt, or a text with slots; None for auto and none. Raises ValueError for anything else."""
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
            raise ValueError(f"a rerank template must have {{{slot}}} once, not {slots.count(slot)} times")
    if slots.count("instruction") > 1:
        raise ValueError("a rerank template must not have {instruction} more than once")
    return RerankPrompt((setting,))


def _recognise_prompt(checkpoint: Checkpoint) -> RerankPrompt | None:
    """The prompt that the model was trained with, if its configuration tells."""
    if checkpoint.config.get("model_type") not in DECODERS:
        return None
    names = f"{join_names(checkpoint.config, checkpoint.name, checkpoint.folder)} {checkpoint.folder}"
    known = find_known_reranker(checkpoint.config, names) or _recognise_by_score(checkpoint)
    if known is None:
        log.warning(
            "%s is a reranker made of a decoder, and its prompt is not known: query and document are joined without "
            "one; the setting rerank_template can state it",
            checkpoint.name,
        )
        return None
    log.info("%s reranks with the prompt %s", checkpoint.name, known.name)
    return PROMPTS[known.name]


def _recognise_by_score(checkpoint: Checkpoint) -> KnownReranker | None:
    """Finds a language model of any name that is scored by the tokens of the known reranker of its type."""
    known, score = KNOWN_RERANKERS.get(str(checkpoint.config.get("model_type"))), checkpoint.logit_score
    return known if known and score and uses_score_tokens(known, score, checkpoint.folder) else None


def _check_room(prompt: RerankPrompt, tokenizer: Tokenizer) -> None:
    [[empty]] = tokenizer.encode([([prompt.fill("", "")], Options())])
    if isinstance(empty, HeddleError):
        raise CheckpointError(f"the rerank template cannot be used: {empty.message}")
    if empty.tokens >= tokenizer.sequence_tokens_max:
        raise CheckpointError(
            f"the rerank template has {empty.tokens} tokens, which leaves no room in {tokenizer.sequence_tokens_max}"
        )


def _fill_segment(segment: str, slots: dict[str, tuple[Role, str]]) -> Segment:
    """Fills all slots in one pass, so that braces in a query or document are not taken for slots."""
    parts = SLOT.split(segment)  # prompt, slot, prompt, slot, ..., prompt
    filled = [slots[part] if index % 2 else (Role.PROMPT, part) for index, part in enumerate(parts)]
    return tuple((role, text) for role, text in filled if text or role is not Role.PROMPT)
