"""The two layers that BGE-M3 has beside its encoder: a weight a token, and a vector a token."""

from pathlib import Path
from typing import NamedTuple

import mlx.core as mx

from mlx_embed.checkpoint.checkpoint import Checkpoint
from mlx_embed.checkpoint.files import present
from mlx_embed.checkpoint.safetensors import load_float32, read_file
from mlx_embed.errors import CheckpointError

_NAMES = ("sparse_linear", "colbert_linear")


class M3Layers(NamedTuple):
    """Linear layers on hidden states [T, H], each "weight" and "bias", float32.

    Attributes:
        sparse: to a weight: [1, H].
        colbert: to a vector: [C, H].
    """

    sparse: dict[str, mx.array]
    colbert: dict[str, mx.array]


def is_m3(folder: Path) -> bool:
    """Whether a folder has BGE-M3's layers, as safetensors or as the pickles that are not opened."""
    return all(any(present(folder / f"{name}.{suffix}") for suffix in ("safetensors", "pt")) for name in _NAMES)


def load_m3(checkpoint: Checkpoint) -> M3Layers:
    """Read sparse_linear.safetensors and colbert_linear.safetensors, evaluated.

    Raises:
        CheckpointError: a file that is missing, such as where there is a pickle in its place, a tensor that is missing,
            of another shape, or not finite.
    """
    hidden = checkpoint.encoder_config.hidden_size
    found = []
    for name in _NAMES:
        path = checkpoint.folder / f"{name}.safetensors"
        if not present(path):
            raise CheckpointError(_missing(checkpoint.folder, name))
        tensors = {tensor.name: tensor for tensor in read_file(path)}
        weight = tensors.get("weight")
        if weight is None or "bias" not in tensors or len(weight.shape) != 2:
            raise CheckpointError(f'{path} has no tensors "weight" and "bias" of a linear layer.')
        outputs = 1 if name == "sparse_linear" else weight.shape[0]
        shapes = {"weight": (outputs, hidden), "bias": (outputs,)}
        found.append(load_float32({key: tensors[key] for key in shapes}, shapes))
    return M3Layers(*found)


def _missing(folder: Path, name: str) -> str:
    return (
        f"{folder} has no {name}.safetensors. BGE-M3's repository has the layer as {name}.pt, a pickle, which "
        "mlx_embed does not open. Where PyTorch is installed, this writes it beside: "
        f"safetensors.torch.save_file(torch.load('{name}.pt', weights_only=True), '{name}.safetensors')."
    )
