"""Files of safetensors: checked by their headers before a byte of data is read, and opened."""

import json
import math
import mmap
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_embed.checkpoint.files import present, read_json
from mlx_embed.errors import CheckpointError, UnsupportedModelError

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

FLOATS = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "I64": 8, "U8": 1, "I8": 1, "BOOL": 1}
Float32: TypeAlias = npt.NDArray[np.float32]
# What numpy calls them, and one that MLX does not read.
_NUMPY = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I32": "<i4", "I64": "<i8", "I8": "i1"}
# What a caller knows tensors by.
Key = TypeVar("Key", bound=Hashable)
# Weights that are told apart from missing ones.
_OTHERS = ("*.bin", "*.pt", "*.h5", "*.gguf", "*.onnx", "onnx/*.onnx", "openvino*.xml", "openvino/*.xml")
# Of these, what was made from weights that are read.
_MADE = {".gguf", ".onnx", ".xml"}
# Bytes; safetensors' own reader has the same limit.
_MAX_HEADER = 100_000_000
# Numbers that are looked at together: 16 MB.
_PIECE = 2**22


@dataclass(frozen=True)
class Tensor:
    """One tensor as a safetensors header describes it.

    Attributes:
        start: the place of its first byte in the file.
        changes: what is made of its numbers when they are read, in order; dtype and shape are those of the outcome.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    changes: tuple[Callable[[mx.array], mx.array], ...] = ()

    def __str__(self) -> str:
        return f"tensor {self.name!r} of {self.file}"


def files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: model.safetensors, or the shards of its index."""
    if present(folder / FILE):
        return [folder / FILE]
    if present(folder / INDEX):
        shards = read_json(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(s, str) for s in shards.values()):
            raise CheckpointError(f'{folder / INDEX} has no "weight_map" from tensors to files.')
        names = sorted(set(shards.values()))
        for name in names:
            # os.path takes a name that no file can have for an absent file.
            if Path(name).name != name or not os.path.isfile(folder / name):
                raise CheckpointError(f"{folder / INDEX} names {name!r}, which is no file beside it.")
        return [folder / name for name in names]
    raise CheckpointError(f"{folder} has no {FILE}. {what_else(folder)}")


def other_weights(folder: Path) -> set[Path]:
    """The weights of a folder that are no safetensors."""
    return {path for pattern in _OTHERS for path in folder.glob(pattern)}


def what_else(folder: Path) -> str:
    """What to do about a folder without whole safetensors, by their parts or the weights of other kinds that it has."""
    if parts := sorted(path.name for path in folder.glob("model-*-of-*.safetensors")):
        return f"It has {parts[0]}, a part of a model, but no {INDEX}, which says what is in which part; download it."
    found = other_weights(folder)
    if not found:
        return "If its repository has weights of another kind only, save them as safetensors: see docs/checkpoints.md."
    names = ", ".join(sorted(path.relative_to(folder).as_posix() for path in found))
    kinds = {path.suffix for path in found} - _MADE
    if not kinds:
        return (
            f"It has {names}, made from another model for other programs; mlx_embed reads safetensors. Take the model "
            "that it was made from: most repositories have both, or name it."
        )
    how = "transformers' AutoModel.from_pretrained(folder).save_pretrained(folder)"
    if kinds == {".h5"}:
        how = (
            "AutoModel.from_pretrained(folder, from_tf=True).save_pretrained(folder) of transformers 4 with TensorFlow"
        )
    return f"It has {names}, which mlx_embed does not open; save it as safetensors, by {how}."


def read_headers(folder: Path, *, float64: bool = False) -> list[Tensor]:
    """The tensors of a folder's safetensors files, checked against the files' sizes.

    With `float64` there may be numbers of 64 bits, which `load_numpy` reads alone.

    Raises:
        CheckpointError: a file that is missing or broken, a tensor that is in two of them, or bytes that belong to no
            tensor. The message names the file.
        UnsupportedModelError: a dtype that is not read.
    """
    tensors = [tensor for path in files(folder) for tensor in read_file(path, float64=float64)]
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        twice = next(tensor for tensor in tensors if names.count(tensor.name) > 1)
        raise CheckpointError(f"{twice} is in another file of the checkpoint too.")
    return tensors


def load(path: Path) -> dict[str, mx.array]:
    """The tensors of a file whose header is checked, lazily: each is read when it is evaluated."""
    _occupy_descriptor_0()
    try:
        loaded: Any = mx.load(str(path))
    except (RuntimeError, ValueError) as error:  # MLX reads the header too, and refuses more than is checked here
        raise CheckpointError(f"{path} is not a safetensors file that MLX reads: {error}") from error
    return dict(loaded)


def _occupy_descriptor_0() -> None:
    """A process without standard input would give this descriptor to a file, and MLX takes it for a failure to open."""
    try:
        os.fstat(0)
    except OSError:
        os.open(os.devnull, os.O_RDONLY)


def load_tensors(tensors: Mapping[Key, Tensor]) -> dict[Key, mx.array]:
    """The arrays of tensors, which may lie in several files, with their changes, under the names given."""
    opened = {path: load(path) for path in {tensor.file for tensor in tensors.values()}}
    arrays = {}
    for name, tensor in tensors.items():
        array = opened[tensor.file][tensor.name]
        for change in tensor.changes:
            array = change(array)
        arrays[name] = array
    return arrays


@dataclass(frozen=True)
class Pages:
    """A file as the system's own pages of it, which are read when they are touched.

    Whoever shortens the file in place, while an array of them lives, ends the process.

    Attributes:
        memory: the file.
        finite: whether all of its data are finite numbers, taken as float32, whatever they are meant as.
    """

    memory: mmap.mmap
    finite: bool


def map_files(folder: Path) -> dict[Path, Pages]:
    """The safetensors files of a folder, before anything is known of them; none where files cannot be mapped.

    All data are read once, in one go, to see whether they are finite.
    """
    found = {}
    for path in files(folder):
        try:
            with path.open("rb") as file:
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return {}
        found[path] = Pages(memory, _data_are_finite(memory))
    return found


def map_float32(tensors: Mapping[Key, Tensor], pages: Mapping[Path, Pages]) -> dict[Key, Float32]:
    """The tensors of float32 as read-only arrays of the files' pages.

    Those that are of another dtype, of another file, changed when they are read, or at a place where no float may be,
    are left out.

    Raises:
        CheckpointError: one that is not finite, or not there whole.
    """
    found = {}
    for key, tensor in tensors.items():
        if tensor.dtype != "F32" or tensor.changes or tensor.start % 4 or tensor.file not in pages:
            continue
        file, count = pages[tensor.file], math.prod(tensor.shape)
        if len(file.memory) < tensor.start + 4 * count:
            raise _cut_off([tensor.file])
        array = np.frombuffer(file.memory, np.float32, count, tensor.start).reshape(tensor.shape)
        if not (file.finite or _sum_is_finite(array) or np.isfinite(array).all()):
            raise _not_finite(tensor, "float32")
        found[key] = array
    return found


def let_go(pages: Mapping[Path, Pages]) -> None:
    """Give the memory of pages that were read back to the system; what is read again comes from the file."""
    for file in pages.values():
        _let_go(file.memory)


def check_whole(pages: Mapping[Path, Pages]) -> None:
    """CheckpointError where a file has been cut since it was mapped: behind its end there is nothing to read."""
    for path, file in pages.items():
        if file.memory.size() < len(file.memory):
            raise _cut_off([path])


def _data_are_finite(memory: mmap.mmap) -> bool:
    """Of a file; read piece by piece, so that it is never in memory whole."""
    start = 8 + int.from_bytes(memory[:8], "little")
    if start % 4 or start >= len(memory):
        return False
    data = np.frombuffer(memory, np.float32, (len(memory) - start) // 4, start)
    for first in range(0, len(data), _PIECE):
        if not _sum_is_finite(data[first : first + _PIECE]):
            return False
        _let_go(memory)
    return True


def _let_go(memory: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):
        memory.madvise(mmap.MADV_DONTNEED)


def _sum_is_finite(array: Float32) -> bool:
    """Then all its numbers are. A sum that is not may have overflowed."""
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(array.sum())


def load_float32(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, mx.array]:
    """The tensors in float32, evaluated.

    Raises:
        CheckpointError: one that has another shape, holds no floats, or holds some that are not finite.
    """
    for name, shape in shapes.items():
        if tensors[name].shape != shape or tensors[name].dtype not in FLOATS:
            raise CheckpointError(
                f"{tensors[name]} is {tensors[name].dtype} {tensors[name].shape}, where its config.json means "
                f"floats {shape}."
            )
    parameters = {name: array.astype(mx.float32) for name, array in load_tensors(tensors).items()}
    check_finite(parameters, {name: [tensor] for name, tensor in tensors.items()})
    return parameters


def check_finite(arrays: Mapping[str, mx.array], sources: Mapping[str, Sequence[Tensor]]) -> None:
    """Evaluate arrays, each of which was read of one tensor, or of several that lie end to end in it.

    Raises:
        CheckpointError: a tensor of floats with NaN or an infinite number.
    """
    floats = {name: array for name, array in arrays.items() if mx.issubdtype(array.dtype, mx.floating)}
    # One pass over each array: its sum is finite only if all its numbers are. A sum that is not may have overflowed.
    sums = {name: array.sum() for name, array in floats.items()}
    try:
        mx.eval(list(arrays.values()), list(sums.values()))
    except RuntimeError as error:
        if not str(error).startswith("[read]"):
            raise
        raise _cut_off([tensor.file for group in sources.values() for tensor in group]) from error
    for name in [name for name, total in sums.items() if not math.isfinite(cast(float, total.item()))]:
        ends = list(accumulate(math.prod(tensor.shape) for tensor in sources[name]))
        for tensor, part in zip(sources[name], mx.split(floats[name].reshape(-1), ends[:-1]), strict=True):
            if not mx.isfinite(part).all().item():
                raise _not_finite(tensor, str(part.dtype).removeprefix("mlx.core."))


def _not_finite(tensor: Tensor, dtype: str) -> CheckpointError:
    advice = "" if dtype == "float32" else ", or use float32"
    return CheckpointError(f"{tensor} holds NaN or infinite numbers in {dtype}; download it again{advice}.")


def _cut_off(paths: Sequence[Path]) -> CheckpointError:
    names = ", ".join(sorted({str(path) for path in paths}))
    return CheckpointError(f"{names} could not be read to the end: is it being written? Try again.")


def _no_number(name: str) -> None:
    """NaN and the infinities, which Python reads where JSON has none."""
    raise ValueError(f"{name} is no number there")


def load_numpy(tensors: Mapping[Key, Tensor]) -> dict[Key, npt.NDArray[Any]]:
    """The arrays of tensors as numpy has them, under the names given; bfloat16, which it has not, as float32."""
    arrays: dict[Key, npt.NDArray[Any]] = {}
    for name, tensor in tensors.items():
        kind, count = _NUMPY.get(tensor.dtype, "<u2"), math.prod(tensor.shape)
        found = np.fromfile(tensor.file, dtype=kind, count=count, offset=tensor.start)
        if len(found) != count:
            raise _cut_off([tensor.file])
        if tensor.dtype == "BF16":
            found = (found.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = found.reshape(tensor.shape)
    return arrays


def read_file(path: Path, *, float64: bool = False) -> list[Tensor]:
    """The tensors of one file, whose header is checked: an 8-byte length, JSON, then data that the offsets must tile.

    Raises: as `read_headers`.
    """
    broken = f"{path} is not a sound safetensors file"
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise CheckpointError(f"{broken}: its header is cut off ({size} bytes in all); download it again.")
        if length > _MAX_HEADER:
            raise CheckpointError(f"{broken}: its header is said to have {length} bytes; download it again.")
        try:
            header = json.loads(file.read(length), parse_constant=_no_number)
        except (ValueError, RecursionError, MemoryError) as error:
            reason = str(error) or "there is no memory for it"
            raise CheckpointError(f"{broken}: its header is no JSON ({reason}); download it again.") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{broken}: its header is no JSON object; download it again.")
    metadata = header.pop("__metadata__", None)
    if metadata is None:  # absent, or the null that MLX writes where there is none
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{broken}: its metadata is not text; download it again.")
    data_bytes = size - 8 - length
    tensors, spans = [], []
    for name, entry in header.items():
        try:
            dtype, shape = str(entry["dtype"]), tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
                raise ValueError("negative or fractional numbers")
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{broken}: the entry of tensor {name!r} is malformed ({error!r}).") from error
        item_bytes = 8 if dtype == "F64" and float64 else _ITEM_BYTES.get(dtype)
        if item_bytes is None:
            raise UnsupportedModelError(
                f"tensor {name!r} of {path} has dtype {dtype}; mlx_embed reads {', '.join(_ITEM_BYTES)}."
            )
        if end > data_bytes:
            raise CheckpointError(
                f"{path} is truncated: tensor {name!r} ends at byte {end} of {data_bytes}; download it again."
            )
        if end - begin != math.prod(shape) * item_bytes:
            raise CheckpointError(f"{broken}: tensor {name!r} of shape {shape} {dtype} has {end - begin} bytes.")
        tensors.append(Tensor(path, name, dtype, shape, 8 + length + begin))
        spans.append((begin, end))
    spans.sort()
    if any(begin != before for (begin, _), (_, before) in zip(spans, [(0, 0), *spans], strict=False)):
        raise CheckpointError(f"{broken}: its tensors overlap or leave gaps; download it again.")
    last = max((end for _, end in spans), default=0)
    if last != data_bytes:
        raise CheckpointError(
            f"{broken}: {data_bytes - last} bytes behind its last tensor belong to none; download it again."
        )
    return tensors
