"""Files of safetensors: shards, and headers and data that must not be read."""

import json
import struct
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CheckpointError, UnsupportedModelError
from mlx_embed.checkpoint import safetensors
from mlx_embed.checkpoint.safetensors import Tensor, check_finite, map_files, map_float32, read_headers
from tests.mlx_embed.checkpoint.tensors import ONES, QUERY, Tensors, change, encode, header_of, read, replaced, write


def shard(folder: Path) -> dict[str, str]:
    """Cut model.safetensors in three, so that q, k and v of one layer lie apart; the index's weight_map."""
    tensors = read(folder)
    (folder / "model.safetensors").unlink()
    place = {name: f"model-{i % 3 + 1:05}-of-00003.safetensors" for i, name in enumerate(tensors)}
    for file in set(place.values()):
        write(folder / file, {name: x for name, x in tensors.items() if place[name] == file})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return place


def test_shards(checkpoint: Path) -> None:
    expected = encode(checkpoint)
    shard(checkpoint)
    assert np.array_equal(encode(checkpoint), expected)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, 'index.json has no "weight_map"'),
        ({"weight_map": {}}, 'has no "weight_map"'),
        ({"weight_map": ["a"]}, 'has no "weight_map"'),
        ({"weight_map": {"a": 1}}, 'has no "weight_map"'),
        ({"weight_map": {"a": "gone.safetensors"}}, "names 'gone.safetensors', which is no file beside it"),
        ({"weight_map": {"a": "../checkpoint/config.json"}}, "which is no file beside it"),
        ({"weight_map": {"a": "1" * 300}}, "which is no file beside it"),
        ({"weight_map": {"a": ""}}, "names '', which is no file"),
        ({"weight_map": {"a": "config.json"}}, "config.json is not a sound safetensors file"),
        ([], "index.json holds a list"),
    ],
)
def test_a_bad_index(index: object, message: str, checkpoint: Path) -> None:
    shard(checkpoint)
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message):
        encode(checkpoint)


def test_a_tensor_in_two_shards(checkpoint: Path) -> None:
    place = shard(checkpoint)
    first, second = sorted(set(place.values()))[:2]
    write(checkpoint / second, read_shard(checkpoint / second) | read_shard(checkpoint / first))
    with pytest.raises(CheckpointError, match=f"tensor '.*' of .*{first} is in another file"):
        encode(checkpoint)


def read_shard(path: Path) -> Tensors:
    renamed = path.rename(path.with_name("model.safetensors"))
    found = read(path.parent)
    renamed.rename(path)
    return found


def test_a_dtype_that_is_not_read(checkpoint: Path) -> None:
    change(checkpoint, replaced(QUERY, ONES.astype(np.float64)))
    with pytest.raises(UnsupportedModelError, match=f"tensor '{QUERY}' of .* has dtype F64; mlx_embed reads"):
        encode(checkpoint)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, -1, -4096])
def test_a_truncated_file(keep: int, checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*(is cut off|is truncated: tensor '.*' ends at)"):
        encode(checkpoint)


SOUND = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
BAD_HEADERS: dict[str, object] = {
    "no JSON": b"{]",
    "no UTF-8": b'{"\xff": 1}',
    "deep": b"[" * 100_000,
    "a list": [],
    "an entry that is a number": {"x": 1},
    "no shape": {"x": {"dtype": "F32", "data_offsets": [0, 16]}},
    "a shape that is text": {"x": SOUND | {"shape": "22"}},
    "a negative shape": {"x": SOUND | {"shape": [-2, -2]}},
    "a fractional shape": {"x": SOUND | {"shape": [2.0, 2]}},
    "three offsets": {"x": SOUND | {"data_offsets": [0, 16, 32]}},
    "backward offsets": {"x": SOUND | {"data_offsets": [16, 0]}},
    "offsets past the end": {"x": SOUND | {"data_offsets": [2**62, 2**62 + 16]}},
    "a huge shape": {"x": SOUND | {"shape": [10**9, 10**9]}},
    "an overflowing shape": {"x": SOUND | {"shape": [2**32, 2**32]}},
    "a number of 5000 digits": b'{"x": {"dtype": "F32", "shape": [' + b"1" * 5000 + b'], "data_offsets": [0, 16]}}',
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_broken_header(name: str, checkpoint: Path) -> None:
    write(checkpoint / "model.safetensors", {"x": ONES}, BAD_HEADERS[name])
    with pytest.raises(CheckpointError, match=r"model\.safetensors.* (is not a sound safetensors file|is truncated)"):
        encode(checkpoint)


@pytest.mark.parametrize("metadata", [{"format": 1}, {"a": None}, [1], "x"])
def test_metadata_that_is_no_text(metadata: object, checkpoint: Path) -> None:
    tensors = read(checkpoint)
    write(checkpoint / "model.safetensors", tensors, {"__metadata__": metadata} | header_of(tensors))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a sound safetensors file: its metadata"):
        encode(checkpoint)


def test_the_null_that_mlx_writes_for_metadata(checkpoint: Path) -> None:
    expected = encode(checkpoint)
    tensors = read(checkpoint)
    write(checkpoint / "model.safetensors", tensors, {"__metadata__": None} | header_of(tensors))
    assert np.array_equal(encode(checkpoint), expected)


def test_numbers_that_json_has_not(checkpoint: Path) -> None:
    """Python reads NaN where JSON has none."""
    tensors = read(checkpoint)
    header = header_of(tensors)
    header[QUERY]["note"] = float("nan")
    write(checkpoint / "model.safetensors", tensors, header)
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors is not a sound .*: its header is no JSON \(NaN is no number"
    ):
        encode(checkpoint)


def test_two_tensors_on_the_same_bytes(checkpoint: Path) -> None:
    tensors = read(checkpoint)
    header = header_of(tensors)
    header[QUERY]["data_offsets"] = header[QUERY.replace("query", "key")]["data_offsets"]
    write(checkpoint / "model.safetensors", tensors, header)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a sound safetensors file"):
        encode(checkpoint)


def test_a_huge_header_length_is_not_allocated(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    for length in (2**40, 2**63, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", length) + b"{}")
        with pytest.raises(CheckpointError, match="its header is cut off"):
            encode(checkpoint)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "tf_model.h5"])
def test_other_formats_are_a_hint(name: str, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / name)
    with pytest.raises(CheckpointError, match=rf"has no model\.safetensors\. It has {name}, which mlx_embed does not"):
        encode(checkpoint)


def test_bytes_that_no_tensor_has(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"\0\0\0\0")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a sound .*: 4 bytes behind its last tensor"):
        encode(checkpoint)


def test_a_header_length_that_is_too_small(checkpoint: Path) -> None:
    """The header ends in spaces, so that it stays JSON; but all tensors would begin four bytes too early."""
    tensors = read(checkpoint)
    header = json.dumps(header_of(tensors)).encode() + b" " * 8
    path = checkpoint / "model.safetensors"
    write(path, tensors, header)
    assert np.isfinite(encode(checkpoint)).all()
    path.write_bytes(struct.pack("<Q", len(header) - 4) + path.read_bytes()[8:])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a sound .*: 4 bytes behind its last tensor"):
        encode(checkpoint)


def test_a_file_without_tensors(checkpoint: Path) -> None:
    write(checkpoint / "model.safetensors", {}, b"{}")
    assert read_headers(checkpoint) == []
    write(checkpoint / "model.safetensors", {"x": ONES}, b"{}")
    with pytest.raises(CheckpointError, match="4096 bytes behind its last tensor belong to none"):
        read_headers(checkpoint)


def test_a_huge_header_in_a_sparse_file(checkpoint: Path) -> None:
    with (checkpoint / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 2**40))
        file.truncate(2**40 + 8)
    with pytest.raises(CheckpointError, match="its header is said to have 1099511627776 bytes"):
        encode(checkpoint)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(value: float) -> None:
    sources = {
        "ab": [Tensor(Path("f"), name, "F32", shape, 0) for name, shape in (("a", (3, 2)), ("b", (1, 2)))],
        "c": [Tensor(Path("f"), "c", "F32", (3,), 0)],
    }
    # Of the sums of these, one overflows, and one of integers is not looked at.
    sound = {"ab": mx.full((4, 2), 3e38), "c": mx.array([1, 2, 3], dtype=mx.int32)}
    check_finite(sound, sources)
    for place, name in ((0, "a"), (2, "a"), (3, "b")):
        array = np.full((4, 2), 3e38, dtype=np.float32)
        array[place, 1] = value
        with pytest.raises(
            CheckpointError, match=f"tensor '{name}' of f holds NaN or infinite numbers in float32; down"
        ):
            check_finite(sound | {"ab": mx.array(array)}, sources)


def aligned_header(tensors: Tensors) -> bytes:
    """A header behind which a float may be."""
    header = json.dumps(header_of(tensors)).encode()
    return header + b" " * (-len(header) % 4)


def mapped(folder: Path) -> dict[str, np.ndarray]:
    return map_float32({tensor.name: tensor for tensor in read_headers(folder)}, map_files(folder))


def test_mapped_weights(checkpoint: Path) -> None:
    """Arrays of the file itself: what is written into it later is seen in them."""
    expected = read(checkpoint)
    found = mapped(checkpoint)
    assert found.keys() == {name for name, array in expected.items() if array.dtype == np.float32}
    assert all(np.array_equal(found[name], expected[name]) and not found[name].flags.writeable for name in found)
    start = next(tensor.start for tensor in read_headers(checkpoint) if tensor.name == QUERY)
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.seek(start)
        file.write(struct.pack("<f", 7.5))
    assert found[QUERY].flat[0] == 7.5


@pytest.mark.parametrize("spaces", [1, 2, 4])
def test_a_place_where_no_float_may_be(spaces: int, checkpoint: Path) -> None:
    """Such a file is read by MLX."""
    expected, tensors = encode(checkpoint), read(checkpoint)
    write(checkpoint / "model.safetensors", tensors, aligned_header(tensors) + b" " * spaces)
    assert bool(mapped(checkpoint)) == (spaces == 4)
    assert np.array_equal(encode(checkpoint), expected)


def test_where_files_cannot_be_mapped(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = encode(checkpoint)

    def fail(*_: object, **__: object) -> None:
        raise OSError(19, "No such device")

    monkeypatch.setattr(safetensors.mmap, "mmap", fail)
    assert map_files(checkpoint) == {}
    assert np.array_equal(encode(checkpoint), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_mapped_numbers_that_are_not_finite(value: float, checkpoint: Path) -> None:
    """Sums that overflow are looked at again; what is no float is of no matter."""
    path, tensors = checkpoint / "model.safetensors", read(checkpoint)
    large = np.full_like(tensors[QUERY], 3e38)
    tensors |= {QUERY: large, "position_ids": np.full(4, -1, np.int64)}  # as float32, the latter are no numbers
    write(path, tensors, aligned_header(tensors))
    assert np.array_equal(mapped(checkpoint)[QUERY], large)
    large.flat[3] = value
    write(path, tensors, aligned_header(tensors))
    with pytest.raises(CheckpointError, match=f"tensor '{QUERY}' of .* holds NaN or infinite numbers in float32; down"):
        mapped(checkpoint)


def test_a_file_that_becomes_shorter_before_it_is_mapped(checkpoint: Path) -> None:
    tensors = {tensor.name: tensor for tensor in read_headers(checkpoint)}
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"model\.safetensors could not be read to the end: is it being written"):
        map_float32(tensors, map_files(checkpoint))
