"""Which linear layers stay in bfloat16 where a CPU computes in int8: those that cost most accuracy, by measurement.

What was found for a model is a file in `mlx-embed/int8` in the user's cache folder, named by a hash of all that it
depends on. The folder may be deleted at any time: what is not known is measured again, with the same outcome.
"""

import contextlib
import json
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from string import ascii_letters, punctuation

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from custom_kernels import cpu
from custom_kernels.choice.machine import hash_of
from custom_kernels.choice.tune import cache_folder
from custom_kernels.cpu.library import library
from mlx_embed.batching import Batch
from mlx_embed.checkpoint import Checkpoint, adapters, quantization, safetensors, weights
from mlx_embed.embedding_head import EmbeddingHead
from mlx_embed.engine import load
from mlx_embed.engine.contract import gathered
from mlx_embed.engine.native import NativeEngine
from mlx_embed.engine.worker import worker
from mlx_embed.errors import UnsupportedModelError
from mlx_embed.static_tokenizer import tokenizer_of
from mlx_embed.texts import logger

# Texts that real ones have among them, and int8 has most trouble with: hardly any tokens, or the same one many times.
# Layers are ranked by the first, and all are to come near.
RANKED_BY = (
    *("a", "e", "K", "Q", "z", *",.?!-:+#%("),
    *("hello", "please", "sorry", "why not", "maybe", "never mind", "really", "who knows", "good morning", "of course"),
    *("nobody", "me too", "no", "wonderful", "stop", "again", "yep", "ok", "42", "...", "NaN", "the the the the"),
    *("日本語のテキスト", "E = mc^2", "user@example.com"),
)
ODD = (
    *RANKED_BY,
    *(character for character in ascii_letters + punctuation if character not in RANKED_BY),
    *("", "?!", "- - - -", "0 0 0 0 0 0", "AAAAAAAA", "2024-05-01", "192.168.0.1", "/usr/local/bin"),
    *("https://example.com/a?b=c&d=1", "SELECT * FROM t WHERE a = 1;", '{"a": [1, 2, 3]}'),
    *("for (int i = 0; i < n; i++) sum += x[i];", "Привет, мир", "مرحبا", "ünïcödé", "😀😀😀"),
)
# The least cosine that is looked for on these texts; a little more than what is promised of others. To vectors in
# bfloat16: their cosine to those in float32 is 0.9999.
LEAST_COSINE = 0.9965
# The greater, the more a layer's rank is a matter of the texts that are farthest off. With less than this some words
# that nobody has chosen layers by were left below 0.995.
FAR = 4
Float32 = npt.NDArray[np.float32]


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


def known(checkpoint: Checkpoint) -> tuple[str, ...] | None:
    """The layers that config.json names, or that `settle` has found before; None where nobody has said so far."""
    stated = quantization.kept_in_bfloat16(checkpoint.config)
    if stated is not None:
        return stated
    try:
        found = json.loads(_file(checkpoint).read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError):  # no such file, no home, or a file that is cut off
        return None
    return tuple(found) if isinstance(found, list) and all(isinstance(path, str) for path in found) else None


def settle(checkpoint: Checkpoint, engine: NativeEngine, max_seq_length: int) -> None:
    """`choose`, remembered, so that the next load of these weights has it from `known`."""
    kept = choose(checkpoint, engine, max_seq_length)
    with contextlib.suppress(OSError, RuntimeError):  # it cannot be written, or there is no home
        file = _file(checkpoint)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(kept), encoding="utf-8")


def choose(checkpoint: Checkpoint, engine: NativeEngine, max_seq_length: int) -> tuple[str, ...]:
    """The few layers that must leave int8 for all odd texts to come near; in the engine they are in bfloat16 then.

    Each layer alone is in bfloat16 once, while the texts of RANKED_BY are computed. The one that brings those that are
    far off most is kept there, and then the next, until the lowest cosine of all is at least LEAST_COSINE.

    Args:
        checkpoint: of the engine's encoder.
        engine: in int8 throughout.
        max_seq_length: tokens at which texts are cut.

    Returns:
        The layers' paths in the encoder, sorted; in float32 where a processor has no products of bfloat16.
    """
    logger.info("Choosing the layers of %s that stay in bfloat16.", checkpoint.folder)
    better = load(checkpoint, "native", engine.device, mx.bfloat16 if cpu.product("bfloat16") else mx.float32)
    assert isinstance(better, NativeEngine)
    parameters = worker.run(partial(weights.load_modules, checkpoint))
    function = EmbeddingHead(checkpoint.pooling, checkpoint.modules, 0, checkpoint.dimension, True)
    heads = {of: of.head(function, parameters) for of in (engine, better)}
    tokenizer = tokenizer_of(checkpoint, max_seq_length)

    def vectors(of: NativeEngine, batches: Sequence[Batch]) -> Float32:
        return gathered(list(of.run(batches, heads[of])))

    def batches(texts: Sequence[str]) -> list[Batch]:
        return list(engine.batches(tokenizer(texts).ids, engine.budget(None)))

    few, every = batches(RANKED_BY), batches(ODD)
    wanted_few, wanted = vectors(better, few), vectors(better, every)

    def cosines() -> Float32:
        found: Float32 = np.sum(wanted_few * vectors(engine, few), axis=1)
        return found

    def near() -> bool:
        return bool(np.sum(wanted * vectors(engine, every), axis=1).min() >= LEAST_COSINE)

    def exchange(path: str) -> None:
        engine.layers[path].exchange(better.layers[path])

    kept: list[str] = []
    if near():
        return ()
    gains = {}
    before = cosines()
    for path in engine.layers:
        exchange(path)
        gains[path] = cosines() - before
        exchange(path)
    while gains:
        missing = (1 - cosines()) ** FAR
        best = max(gains, key=lambda path: float((missing * gains[path]).sum()))
        del gains[best]
        exchange(best)
        kept.append(best)
        if near():
            break
    return tuple(sorted(kept))


def _file(checkpoint: Checkpoint) -> Path:
    """Where it is remembered: by the files of the weights as they are now, what config.json says, and this code."""
    import hashlib

    files = [*safetensors.files(checkpoint.weights)]
    if checkpoint.adapter is not None:
        files.append(checkpoint.adapter.folder / adapters.FILE)
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    native = library().mlx_embed_source_hash()
    parts = (stats, sorted(checkpoint.config.items()), repr(checkpoint.pooling), checkpoint.task, native, _sources())
    return cache_folder() / "int8" / f"{hashlib.sha256(repr(parts).encode()).hexdigest()}.json"


@cache
def _sources() -> str:
    """A hash of the code that says what layers there are, and of this file."""
    return hash_of([Path(__file__), *sorted((Path(__file__).parent / "architectures").rglob("*.py"))])
