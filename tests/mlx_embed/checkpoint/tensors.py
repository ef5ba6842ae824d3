"""Safetensors written byte by byte, and checkpoints with other tensors in them."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlx_embed import EmbeddingModel

TEXTS = ["the wing", "heat flow of a boundary layer", ""]
QUERY = "encoder.layer.1.attention.self.query.weight"
ONES = np.ones((32, 32), np.float32)
Tensors = dict[str, np.ndarray]


def read(folder: Path) -> Tensors:
    """The float32 tensors of a folder's model.safetensors."""
    data = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        found[name] = np.frombuffer(data[begin:end], dtype=np.float32).reshape(entry["shape"])
    return found


def header_of(tensors: Tensors) -> dict[str, Any]:
    names = {"float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32"}
    header, begin = {}, 0
    for name, array in tensors.items():
        end = begin + array.nbytes
        header[name] = {"dtype": names[array.dtype.name], "shape": list(array.shape), "data_offsets": [begin, end]}
        begin = end
    return header


def write(path: Path, tensors: Tensors, header: object = None) -> None:
    """A safetensors file, with another header than the tensors' where one is given: JSON values, or bytes."""
    head = header_of(tensors) if header is None else header
    encoded = head if isinstance(head, bytes) else json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + b"".join(x.tobytes() for x in tensors.values()))


def change(folder: Path, edit: Callable[[Tensors], Tensors]) -> Path:
    write(folder / "model.safetensors", edit(read(folder)))
    return folder


def encode(folder: Path) -> np.ndarray:
    return EmbeddingModel.from_pretrained(folder, device="cpu").encode(TEXTS)


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: x for name, x in tensors.items()}


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: x for name, x in tensors.items() if name not in names}


def replaced(name: str, array: np.ndarray) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: array}
