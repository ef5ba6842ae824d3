"""From a model's name to what every kind of model starts from: its checkpoint, and the engine that has its weights."""

from dataclasses import dataclass
from pathlib import Path

from mlx_embed import hub
from mlx_embed.config import Checkpoint, read_checkpoint
from mlx_embed.engine import Engine, choose
from mlx_embed.engine import load as load_engine
from mlx_embed.engine.device import is_cpu, prepare_accelerator, resolve_device, resolve_dtype
from mlx_embed.options import LOAD, LoadOptions, complete


@dataclass(frozen=True)
class Loaded:
    """A model without a head.

    Attributes:
        name: as the hub or the caller knows it.
        checkpoint: what its folder says.
        engine: which has the encoder.
        max_seq_length: tokens at which texts are cut, special tokens included.
    """

    name: str
    checkpoint: Checkpoint
    engine: Engine
    max_seq_length: int


def load(method: str, name_or_path: str | Path, given: LoadOptions) -> Loaded:
    """Load a checkpoint; `method` is what the user called, and `given` the options that came with it.

    Raises:
        ModelNotFoundError: neither a folder nor to be had from the hub.
        CheckpointError: a file or tensor that is missing, broken or inconsistent.
        UnsupportedModelError: an architecture, module or activation that is not implemented.
        ValueError: an unknown device, dtype or engine, one that another rules out, or a max_seq_length that the model
            cannot have.
        TypeError: an option that there is not.
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
    return Loaded(name, checkpoint, load_engine(checkpoint, options["engine"], device, dtype), length)


def _max_seq_length(wanted: int | None, checkpoint: Checkpoint) -> int:
    limit: int = checkpoint.encoder_config.max_tokens
    if wanted is None:
        return min(checkpoint.max_seq_length or limit, limit)
    if not 1 <= wanted <= limit:
        raise ValueError(f"max_seq_length {wanted} is not within 1..{limit}, what the model's positions allow.")
    return wanted
