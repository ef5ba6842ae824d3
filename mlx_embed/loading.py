"""From a model's name to what every kind of model starts from: its checkpoint, and then the engine with its weights."""

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlx_embed.arguments import whole_number
from mlx_embed.checkpoint import Checkpoint, hub, read_checkpoint
from mlx_embed.engine import Engine, EngineChoice, choose, load, memory
from mlx_embed.engine.device import is_cpu, prepare_accelerator, resolve_device, resolve_dtype
from mlx_embed.options import LOAD, LoadOptions, complete


@dataclass(frozen=True)
class Opened:
    """A model whose folder is there and read, but for the weights.

    Attributes:
        name: as the hub or the caller knows it.
        checkpoint: what its folder says.
        max_seq_length: tokens at which texts are cut, special tokens included.
        device: where to compute.
        dtype: what to compute in; None is the checkpoint's own.
        engine: which engine is wanted.
    """

    name: str
    checkpoint: Checkpoint
    max_seq_length: int
    device: mx.Device
    dtype: mx.Dtype | None
    engine: EngineChoice

    def load(self) -> Engine:
        """The engine, with the encoder's weights; see `engine.load`."""
        return load(self.checkpoint, self.engine, self.device, self.dtype)


def open_model(method: str, name_or_path: str | Path, given: LoadOptions) -> Opened:
    """Find a model and read its folder; `method` is what the user called, and `given` the options that came with it.

    Raises:
        ModelNotFoundError: neither a folder nor to be had from the hub.
        CheckpointError: a file that is missing, broken or inconsistent.
        UnsupportedModelError: an architecture, module or activation that is not implemented.
        ValueError: an unknown device, dtype or engine, one that another rules out, or a max_seq_length that the model
            cannot have.
        TypeError: an option that there is not, or a max_seq_length that is no whole number.
        MemoryError: a model that is larger than the memory that is left to this process.
    """
    options: LoadOptions = complete(method, given, LOAD)
    device = resolve_device(options["device"])
    dtype = resolve_dtype(options["dtype"], device)
    choose(options["engine"], device, dtype)  # what cannot be should not be downloaded first
    if not is_cpu(device):
        prepare_accelerator()
    folder = hub.resolve(
        name_or_path,
        revision=options["revision"],
        cache_dir=options["cache_dir"],
        local_files_only=options["local_files_only"],
    )
    name = hub.repository_id(name_or_path)
    checkpoint = read_checkpoint(folder, name)
    length = _max_seq_length(options["max_seq_length"], checkpoint)
    if is_cpu(device):
        memory.check(checkpoint, dtype)
    return Opened(name, checkpoint, length, device, dtype, options["engine"])


def _max_seq_length(wanted: int | None, checkpoint: Checkpoint) -> int:
    limit = checkpoint.encoder_config.max_tokens
    if wanted is None:
        return min(checkpoint.max_seq_length or limit, limit)
    wanted = whole_number("max_seq_length", wanted)
    if not 1 <= wanted <= limit:
        raise ValueError(f"max_seq_length {wanted} is not within 1..{limit}, what the model's positions allow.")
    return wanted
