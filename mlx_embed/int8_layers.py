"""How a CPU computes a model's linear layers in int8, by measurement: what columns are scaled by, which layers are not.

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
from mlx_embed.checkpoint import Checkpoint, adapters, int8, safetensors, weights
from mlx_embed.checkpoint.int8 import Int8Layers
from mlx_embed.embedding_head import EmbeddingHead
from mlx_embed.engine import load
from mlx_embed.engine.contract import gathered
from mlx_embed.engine.native import NativeEngine
from mlx_embed.engine.worker import worker
from mlx_embed.errors import CheckpointError, UnsupportedModelError
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
# Other texts may have larger numbers in columns that are nearly empty in these.
SHARE = 1 / 4
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


def known(checkpoint: Checkpoint) -> Int8Layers | None:
    """What config.json says, or `settle` has found before; None where nobody has said so far."""
    stated = int8.stated(checkpoint.config)
    if stated is not None:
        return stated
    try:
        return Int8Layers.read(json.loads(_file(checkpoint).read_text(encoding="utf-8")))
    except (OSError, RuntimeError, ValueError, CheckpointError):  # no such file, no home, or a file that is cut off
        return None


def settle(checkpoint: Checkpoint, max_seq_length: int) -> NativeEngine:
    """The engine of `choose`, whose finding is remembered: the next load of these weights has it from `known`."""
    engine, layers = choose(checkpoint, max_seq_length)
    with contextlib.suppress(OSError, RuntimeError):  # it cannot be written, or there is no home
        file = _file(checkpoint)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(layers.as_dict()), encoding="utf-8")
    return engine


def choose(checkpoint: Checkpoint, max_seq_length: int) -> tuple[NativeEngine, Int8Layers]:
    """An encoder in int8, in which all odd texts come near.

    What the layers multiply is watched while those texts are computed in bfloat16, and columns of it and of the weight
    are scaled against each other: see `balanced`. Then each layer alone is in bfloat16 once, while the texts of
    RANKED_BY are computed. The one that brings those that are far off most is kept there, and then the next, until the
    lowest cosine of all is at least LEAST_COSINE: no layer, where it is so from the beginning.

    Args:
        checkpoint: of a model that `check` has nothing to say against.
        max_seq_length: tokens at which texts are cut.

    Returns:
        The engine, and how its layers are; those that are kept are in float32 where a processor has no products of
        bfloat16.
    """
    logger.info("Choosing how the layers of %s are computed in int8.", checkpoint.folder)
    device = mx.Device(mx.cpu)
    better = load(checkpoint, "native", device, mx.bfloat16 if cpu.product("bfloat16") else mx.float32)
    assert isinstance(better, NativeEngine)
    parameters = worker.run(partial(weights.load_modules, checkpoint))
    function = EmbeddingHead(checkpoint.pooling, checkpoint.modules, 0, checkpoint.dimension, True)
    head = better.head(function, parameters)  # which runs on either engine's rows
    tokenizer = tokenizer_of(checkpoint, max_seq_length)

    def vectors(of: NativeEngine, batches: Sequence[Batch]) -> Float32:
        return gathered(of.run(batches, head))

    def batches(texts: Sequence[str]) -> list[Batch]:
        ids = tokenizer(texts).ids
        # A text without tokens, where no special ones are added, has no vector that could be near.
        return list(better.batches(ids[np.flatnonzero(ids.lengths)], better.budget(None)))

    few, every = batches(RANKED_BY), batches(ODD)
    greatest = {path: np.zeros(layer.in_features, np.float32) for path, layer in better.layers.items()}
    for path, layer in better.layers.items():
        layer.watch(greatest[path])
    wanted = vectors(better, every)
    for layer in better.layers.values():
        layer.watch(None)
    wanted_few = vectors(better, few)
    exponents = {}

    def columns(path: str, weight: Float32) -> Float32:
        exponents[path] = int8.nearest(balanced(greatest[path], weight))
        return int8.factors(path, exponents[path], weight)

    engine = load(
        checkpoint, "native", device, mx.int8, columns={path: partial(columns, path) for path in better.layers}
    )
    assert isinstance(engine, NativeEngine)

    def cosines() -> Float32:
        found: Float32 = np.sum(wanted_few * vectors(engine, few), axis=1)
        return found

    def near() -> bool:
        return bool(np.sum(wanted * vectors(engine, every), axis=1).min() >= LEAST_COSINE)

    def exchange(path: str) -> None:
        engine.layers[path].exchange(better.layers[path])

    kept: list[str] = []
    gains = {}
    if not near():
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
    return engine, Int8Layers(tuple(sorted(kept)), {path: exponents[path] for path in exponents if path not in kept})


def balanced(greatest: Float32, weight: Float32) -> Float32:
    """What columns of a weight [N, K] are multiplied by, and those of x divided by: [K].

    The greatest number of a column is then as far from that of the others in x as in the weight: SmoothQuant (Xiao et
    al., 2022) with alpha 0.5. `greatest` [K] is of x. What is far below a layer's average counts as SHARE of it.
    """
    tiny = np.finfo(np.float32).tiny
    x, w = (np.maximum(most, SHARE * most.mean() + tiny) for most in (greatest, np.abs(weight).max(axis=0)))
    factors: Float32 = np.sqrt(x / w)
    return factors


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
    files = [Path(__file__), Path(int8.__file__), *sorted((Path(__file__).parent / "architectures").rglob("*.py"))]
    return hash_of(files)
