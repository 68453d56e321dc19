"""Settings of `heddle build`. A flag comes first, then a HEDDLE_BUILD_* variable, then the config file, then the
default here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heddle.checkpoint.language_models import AUTO, parse_score_tokens
from heddle.checkpoint.sentence_modules import PoolingSetting
from heddle.quantization import NO_QUANT, Quantization
from heddle.rpc.settings import at_least, resolve

BUILD_PREFIX = "HEDDLE_BUILD_"

# Fields that `heddle serve` has too.
SHARED_WITH_SERVE = ("model", "revision", "pooling", "score_tokens", "dtype", "quantization")


@dataclass(frozen=True)
class BuildSettings:
    """Converts a model into a folder that starts fast: one canonical set of safetensors, quantized on request, with
    tokenizer, configuration and a manifest. `heddle serve --model FOLDER` serves it. The same model and settings give
    the same bytes.

        heddle build config.yaml                    what `heddle serve config.yaml` would load
        heddle build --model BAAI/bge-m3 --output bge-m3
        heddle build --model Qwen/Qwen3-Embedding-0.6B --quantization fp8 --store s3://bucket/builds
        heddle build --verify bge-m3

    Without --output, the build goes to Heddle's cache (HEDDLE_CACHE, or ~/.cache/heddle)."""

    # Model

    # Model folder, name on the Hugging Face Hub, or address of a checkpoint.
    model: str = ""
    # Branch, tag or commit of a hub model; empty means main.
    revision: str = ""
    # How the vectors of tokens become one vector. auto uses the pooling of the checkpoint. The build stores the
    # pooling, so that serving it needs no setting.
    pooling: PoolingSetting = "auto"
    # For rerankers that are causal language models: the tokens whose logits make the score, such as yes,no. The build
    # stores them.
    score_tokens: str = AUTO

    # Weights

    # Data type of the stored weights. auto keeps that of the checkpoint.
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    # Quantization of the weights of linear layers. fp8* and fp4* are for decoders only; weights_int8 and smooth_quant
    # also for encoders on a CPU.
    quantization: Quantization = NO_QUANT
    # File with texts for calibration and the report, one per line. Uses Heddle's own texts if unset.
    calibration_texts: Path | None = None
    # Maximum number of texts for calibration.
    calibration_size: int = 1024
    # Maximum tokens of a text for calibration; longer texts are truncated.
    calibration_tokens_max: int = 1536
    # Compare the quantized model with the original on texts that were not used for calibration.
    report: bool = True

    # Result

    # Folder to write: a new one, an empty one, or an earlier build.
    output: Path | None = None
    # Publish the build to this store: an address such as s3://bucket/path, or a folder.
    store: str = ""
    # Replace a different build in --output, and build again even if the build exists.
    force: bool = False
    # Largest weight file in GB; larger models get several. 0 = no limit.
    file_gb_max: float = 5.0
    # Build nothing; check every file of this earlier build against the hash in its manifest.
    verify: Path | None = None

    # Work

    # How many GPUs calibrate and quantize, limited to those present; 0 = the CPU.
    builder_gpus: int = 0
    # CPU cores that convert and quantize; 0 = all.
    cores: int = 0

    def __post_init__(self) -> None:
        parse_score_tokens(self.score_tokens)
        at_least(0, file_gb_max=self.file_gb_max, builder_gpus=self.builder_gpus, cores=self.cores)
        at_least(1, calibration_size=self.calibration_size, calibration_tokens_max=self.calibration_tokens_max)
        if not self.model and self.verify is None:
            raise ValueError("--model is required (or HEDDLE_BUILD_MODEL)")

    @property
    def data_type(self) -> str:
        """float32, bfloat16, float16, or "" to keep that of the checkpoint."""
        return "" if self.dtype == "auto" else self.dtype

    @property
    def file_bytes_max(self) -> int | None:
        return int(self.file_gb_max * 1e9) or None


def read_build_settings(
    flags: Sequence[str], environ: Mapping[str, str], stated: Mapping[str, str | None]
) -> BuildSettings:
    """`stated` maps field names to values of the config file. Raises ConfigurationError."""
    of_file = {f"{BUILD_PREFIX}{name.upper()}": value for name, value in stated.items() if value}
    own = {name: value for name, value in environ.items() if value and name.startswith(BUILD_PREFIX)}
    return resolve(BuildSettings, flags, {**of_file, **own}, prog="heddle build", env_prefix=BUILD_PREFIX)
