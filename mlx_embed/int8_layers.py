"""Which linear layers stay in bfloat16 where a CPU computes in int8: those that cost most accuracy, by measurement."""

import json
from collections.abc import Sequence
from pathlib import Path
from string import ascii_letters, punctuation
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from custom_kernels import cpu
from mlx_embed.checkpoint import Checkpoint, weights
from mlx_embed.embedding_model import EmbeddingModel
from mlx_embed.engine.worker import worker
from mlx_embed.errors import UnsupportedModelError

# Texts that real ones have among them, and int8 has most trouble with: hardly any tokens, or the same one many times.
ODD = (
    *ascii_letters,
    *punctuation,
    *("", "yes", "ok", "42", "...", "?!", "- - - -", "the the the the", "NaN", "0 0 0 0 0 0", "AAAAAAAA"),
    *("2024-05-01", "192.168.0.1", "/usr/local/bin", "https://example.com/a?b=c&d=1", "user@example.com"),
    *("SELECT * FROM t WHERE a = 1;", '{"a": [1, 2, 3]}', "for (int i = 0; i < n; i++) sum += x[i];", "E = mc^2"),
    *("日本語のテキスト", "Привет, мир", "مرحبا", "ünïcödé", "😀😀😀"),
)
# The least cosine to float32 that is looked for on these texts; a little more than what is promised of others.
LEAST_COSINE = 0.9965


def check(checkpoint: Checkpoint) -> None:
    """Raise where there is nothing to choose.

    Raises:
        UnsupportedModelError: a model that the native kernels do not run, or a processor without int8 products, on
            which nothing can be measured.
    """
    if checkpoint.architecture.LAYOUT != "packed":
        raise UnsupportedModelError(
            f'{checkpoint.folder} is no encoder that the native CPU kernels run; leave quantize="int8-cpu" out.'
        )
    if not cpu.available() or not cpu.product("int8"):
        reason = cpu.why_unavailable() or "This processor has no products of int8."
        raise UnsupportedModelError(f'{reason} quantize="int8-cpu" measures them; convert where they are.')


def choose(checkpoint: Checkpoint, folder: Path, sample: Sequence[str]) -> tuple[str, ...]:
    """The fewest layers found that must stay in bfloat16 for all texts to come near float32, written into config.json.

    Layers are ranked by what each brings alone, on average over `sample` and odd texts; so many of the first are taken
    that the lowest cosine is at least LEAST_COSINE.

    Args:
        checkpoint: of the source.
        folder: a written checkpoint of it, whose config.json is changed.
        sample: texts.

    Returns:
        The layers' paths in the encoder.
    """
    texts = (*sample, *ODD)
    config = folder / checkpoint.transformer.relative_to(checkpoint.folder) / "config.json"

    def vectors(dtype: str) -> npt.NDArray[np.float32]:
        return np.asarray(
            EmbeddingModel.from_pretrained(folder, device="cpu", dtype=dtype).encode(
                texts, normalize_embeddings=True, long_text="mean_of_chunks", show_progress_bar=False
            )
        )

    def cosines(kept: Sequence[str]) -> npt.NDArray[np.float32]:
        stated: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        stated["int8_cpu"] = {"bfloat16": sorted(kept)}
        config.write_text(json.dumps(stated, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        found: npt.NDArray[np.float32] = np.sum(exact * vectors("int8"), axis=1)
        return found

    def enough(count: int) -> bool:
        return bool(cosines(ranked[:count]).min() >= LEAST_COSINE)

    exact, ranked = vectors("float32"), list[str]()
    if enough(0):
        return ()
    alone = {path: float(cosines([path]).mean()) for path in _linear_layers(checkpoint)}
    ranked = sorted(alone, key=lambda path: -alone[path])
    fewest, most = 1, len(ranked)
    while fewest < most:
        middle = (fewest + most) // 2
        fewest, most = (fewest, middle) if enough(middle) else (middle + 1, most)
    cosines(ranked[:fewest])
    return tuple(sorted(ranked[:fewest]))


def _linear_layers(checkpoint: Checkpoint) -> list[str]:
    encoder: nn.Module = worker.run(lambda: weights.load_encoder(checkpoint, mx.float32))
    return [path for path, module in encoder.named_modules() if isinstance(module, (nn.Linear, nn.QuantizedLinear))]
