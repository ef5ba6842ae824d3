"""Which engine runs a model, decided once, when it is loaded."""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Literal, get_args

import mlx.core as mx
import mlx.nn as nn

from custom_kernels import cpu
from custom_kernels.arrays import spelled
from custom_kernels.choice.switch import kernels_wanted
from mlx_embed.architectures.ops import graph
from mlx_embed.checkpoint import Checkpoint, weights
from mlx_embed.checkpoint.int8 import Columns
from mlx_embed.checkpoint.safetensors import map_files, read_headers
from mlx_embed.engine.contract import Engine, HeadFunction
from mlx_embed.engine.device import accelerator, is_cpu
from mlx_embed.engine.graph import GraphEngine
from mlx_embed.engine.native import NativeEngine
from mlx_embed.engine.table import TableEngine
from mlx_embed.engine.worker import worker
from mlx_embed.errors import warn

# What the native kernels may be asked for.
NATIVE = (mx.float32, mx.bfloat16, mx.int8)
# Architectures whose hidden states can leave the range of float16: T5, of whose feed-forward layers transformers clamps
# the results, and decoders, which few were trained in float16.
LARGE_VALUES = {
    "embedding_gemma2",
    "gemma",
    "gemma3_text",
    "llama",
    "mistral",
    "modernbert_decoder",
    "qwen2",
    "qwen3",
    "t5",
}
EngineChoice = Literal["auto", "native", "graph", "reference"]
ENGINES: tuple[str, ...] = get_args(EngineChoice)


def choose(wanted: str, device: mx.Device, dtype: mx.Dtype | None) -> str:
    """The engine to take for a model: "native", "graph" or "reference".

    "auto" is the native kernels on a CPU (`native_dtype` says in what they compute), graphs with this package's kernels
    on an accelerator, and where neither can be had, or kernels are switched off, MLX's own ops.

    Raises:
        ValueError: an unknown name, "native" for another device or dtype than the kernels are for, or a wrong setting
            in the environment.
        RuntimeError: "native" where the kernels were not built.
    """
    cpu.settings.check()
    kernels = kernels_wanted()
    if wanted not in ENGINES:
        raise ValueError(f"engine {wanted!r} is not one of {', '.join(ENGINES)}.")
    if wanted == "native":
        if not is_cpu(device) or dtype is None or dtype not in NATIVE:
            raise ValueError(
                'engine "native" computes in float32, bfloat16 or int8 on the CPU: pass device="cpu" and one of these '
                'dtypes or none, or engine="auto".'
            )
        if reason := cpu.why_unavailable():
            raise RuntimeError(reason)
    chosen = _auto(device, kernels) if wanted == "auto" else wanted
    if dtype is not None and dtype == mx.int8 and chosen != "native":
        raise ValueError(
            f'dtype "int8" is of the native CPU kernels, and engine {wanted!r} is "{chosen}" here: leave engine at '
            '"auto" and kernels switched on, or take another dtype.'
        )
    return chosen


def _auto(device: mx.Device, kernels: bool) -> str:
    if not kernels:
        return "reference"
    if not is_cpu(device):
        return "graph"
    return "native" if _native_kernels() else "reference"


def default_dtype(checkpoint: Checkpoint, device: mx.Device) -> mx.Dtype | None:
    """What an accelerator computes a checkpoint in where nothing is asked for; None is what its weights are stored in.

    On Metal an encoder that is float32 throughout is computed in float16: half the bytes, and vectors of cosine 0.9999.
    """
    if is_cpu(device) or accelerator() != "metal" or checkpoint.config.get("quantization"):
        return None
    module = checkpoint.architecture.__name__.rpartition(".")[2]
    if checkpoint.architecture.LAYOUT == "table" or module in LARGE_VALUES:
        return None
    stored = {tensor.dtype for tensor in read_headers(checkpoint.weights)}
    return mx.float16 if stored & {"F32", "F16", "BF16"} == {"F32"} else None


def native_dtype(dtype: mx.Dtype | None) -> mx.Dtype:
    """What the native kernels compute in where `dtype` is asked for.

    bfloat16 and int8 where the processor multiplies them, and float32 elsewhere, which MLX's own ops in the dtype asked
    for would not come near. float16 is float32 everywhere: bfloat16 would be faster and is less precise than float16,
    and who asks for float16 is promised its vectors.
    """
    if dtype is None:
        return mx.float32
    if dtype == mx.int8 and cpu.product("int8"):
        return mx.int8
    if dtype in (mx.int8, mx.bfloat16) and cpu.product("bfloat16"):
        return mx.bfloat16
    return mx.float32


def load(
    checkpoint: Checkpoint,
    wanted: str,
    device: mx.Device,
    dtype: mx.Dtype | None,
    known: HeadFunction | None = None,
    kept: Collection[str] = (),
    columns: Mapping[str, Columns] | None = None,
) -> Engine:
    """Load a checkpoint's encoder into the engine that is wanted; `known` as of `GraphEngine`.

    Natively in int8, the linear layers whose paths are among `kept` are in bfloat16, and the others have `columns`
    scaled; see `NativeEngine`.

    Raises:
        CheckpointError: weights that are missing, broken or of another model.
        ValueError, RuntimeError: as `choose`.
    """
    pads = checkpoint.pooling.padded
    if checkpoint.architecture.LAYOUT == "table" and dtype is not None and dtype != mx.float32:
        warn(
            f"A static model's table stays in the dtype of its file, and is averaged in float32: {spelled(dtype)} "
            "changes nothing. `mlx-embed convert --dtype` writes the table in another one."
        )
    if checkpoint.architecture.LAYOUT == "table" and wanted == "auto" and kernels_wanted() and _native_kernels():
        # A lookup takes less time than to bring ids to a GPU, and vectors back.
        wanted, device, dtype = "native", mx.Device(mx.cpu), mx.float32
    chosen = choose(wanted, device, dtype)
    if chosen == "native" and checkpoint.architecture.LAYOUT == "table":
        return worker.run(lambda: TableEngine(weights.load_encoder(checkpoint, dtype)), device)
    if chosen == "native":
        computed = native_dtype(dtype)
        if dtype is not None and dtype != computed:
            _say_other(spelled(dtype), spelled(computed))
        if computed != mx.int8:
            kept, columns = (), None
        return worker.run(lambda: _native(checkpoint, computed, pads, kept, columns), device)
    kernels = chosen == "graph"

    def encoder_laid_out() -> nn.Module:
        encoder = weights.load_encoder(checkpoint, dtype)
        if kernels and not is_cpu(device):
            graph.lay_out(encoder)
        return encoder

    encoder = worker.run(encoder_laid_out, device)
    engine = GraphEngine(encoder, device, kernels=kernels, compiled=_compiled(chosen, device), pads=pads, known=known)
    if kernels and not is_cpu(device) and accelerator() == "metal":
        longest = checkpoint.max_seq_length or checkpoint.encoder_config.max_tokens
        worker.run(lambda: engine.prepare(longest), device)
    return engine


def _native(
    checkpoint: Checkpoint,
    dtype: mx.Dtype,
    pads: bool,
    kept: Collection[str],
    columns: Mapping[str, Columns] | None,
) -> NativeEngine:
    pages = map_files(checkpoint.weights)
    # Most of the weights are laid out somewhere else. Of the tables, whose rows stay there, a text needs few.
    encoder = weights.load_encoder(checkpoint, mx.float32, pages)
    return NativeEngine(encoder, dtype, pads=pads, kept=kept, columns=columns, pages=pages)


def _compiled(chosen: str, device: mx.Device) -> bool:
    """On a CPU compiling calls a C++ compiler, which only who asks for graphs there has to wait for."""
    return chosen == "graph" or not is_cpu(device)


@cache
def _say_other(dtype: str, computed: str) -> None:
    """MLX's own ops would do as asked, tens of times slower, with less precise vectors."""
    reference = "" if dtype == "int8" else f'; engine="reference" computes in {dtype}, tens of times slower'
    warn(f"On this CPU the kernels compute in {computed}, and so does this model, rather than in {dtype}{reference}.")


@cache
def _native_kernels() -> bool:
    """Whether the native CPU kernels are here; where they are not, says so once."""
    reason = cpu.why_unavailable()
    if reason:
        warn(f"{reason} Until then models run on MLX's own CPU ops, tens of times slower.")
    return not reason
