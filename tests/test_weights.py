"""Safetensors to parameters: names and layouts that must load, and files that must not."""

import json
import re
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import CheckpointError, EmbeddingModel, UnsupportedModelError, convert

TEXTS = ["the wing", "heat flow of a boundary layer", ""]
QUERY = "encoder.layer.1.attention.self.query.weight"
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


def old_norms(tensors: Tensors) -> Tensors:
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {re.sub("|".join(old), lambda match: old[match[0]], name): x for name, x in tensors.items()}
    assert renamed.keys() != tensors.keys()
    return renamed


def with_heads(tensors: Tensors) -> Tensors:
    unused = {
        "embeddings.position_ids": np.arange(64, dtype=np.int64)[None],
        "pooler.dense.weight": np.full((32, 32), np.nan, np.float32),
        "cls.predictions.transform.LayerNorm.gamma": np.ones(7, np.float32),
        "classifier.weight": np.ones((3, 32), np.float32),
    }
    return unused | {name: x for name, x in tensors.items() if "pooler" not in name}


LAYOUTS = {
    "bert.": prefixed("bert."),
    "model.": prefixed("model."),
    "0.auto_model.": prefixed("0.auto_model."),
    "0.auto_model.bert.": prefixed("0.auto_model.bert."),
    "gamma and beta": old_norms,
    "heads": with_heads,
    "prefixed heads": lambda tensors: prefixed("bert.")(with_heads(tensors)),
    "backwards": lambda tensors: dict(reversed(tensors.items())),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_give_the_same_vectors(layout: str, checkpoint: Path) -> None:
    expected = encode(checkpoint)
    assert np.array_equal(encode(change(checkpoint, LAYOUTS[layout])), expected)


@pytest.mark.parametrize("given", ["mlx", "pt", None])
def test_names_count_and_not_the_format_that_metadata_states(
    given: str | None, checkpoint: Path, tmp_path: Path
) -> None:
    """Hugging Face's names in a file that calls itself MLX's, and this package's in one that does not."""
    expected = encode(checkpoint)
    convert(checkpoint, tmp_path / "converted")
    for folder in (checkpoint, tmp_path / "converted"):
        tensors = read(folder)
        metadata = {} if given is None else {"__metadata__": {"format": given}}
        write(folder / "model.safetensors", tensors, metadata | header_of(tensors))
        assert np.array_equal(encode(folder), expected)


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


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: x for name, x in tensors.items() if name not in names}


def replaced(name: str, array: np.ndarray) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: array}


ONES = np.ones((32, 32), np.float32)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("embeddings.LayerNorm.bias"), r"lacks embeddings\.LayerNorm\.bias in model\.safetensors"),
        (without(QUERY), f"lacks {re.escape(QUERY)} in model.safetensors"),
        (without("encoder.layer.2.output.dense.bias"), "lacks encoder.layer.2.output.dense.bias in"),
        (lambda tensors: {"x": ONES}, "asks for 3 layers, but the weights hold 0"),
        (lambda tensors: tensors | {"encoder.layer.3.x": ONES}, r"has tensor 'encoder.layer.3.x' of .*model.safetens"),
        (lambda tensors: tensors | {f"{i}": ONES for i in range(9)}, "and 6 more, which the architecture does not"),
        (lambda tensors: tensors | prefixed("bert.")(tensors), "are both the encoder's 'embeddings"),
        (
            replaced("embeddings.word_embeddings.weight", ONES),
            r"tensor 'embeddings.word_embeddings.weight' of .*model.safetensors has shape \(32, 32\), .* \(120, 32\)",
        ),
        (replaced(QUERY, ONES[:31]), rf"tensor '{re.escape(QUERY)}' of .* has shape \(31, 32\), .* \(32, 32\)"),
        (replaced(QUERY, ONES[0, 0]), rf"tensor '{re.escape(QUERY)}' of .* has shape \(\), .* \(32, 32\)"),
        (replaced("embeddings.LayerNorm.bias", ONES[0, 0]), r"LayerNorm.bias' of .* has shape \(\), .* \(32,\)"),
        (replaced(QUERY, ONES.astype(np.int32)), rf"tensor '{re.escape(QUERY)}' of .* has dtype I32"),
    ],
)
def test_tensors_that_do_not_fit(edit: Callable[[Tensors], Tensors], message: str, checkpoint: Path) -> None:
    change(checkpoint, edit)
    with pytest.raises(CheckpointError, match=message):
        encode(checkpoint)


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


def test_what_only_mlx_refuses(checkpoint: Path) -> None:
    """Python reads NaN where JSON has none."""
    tensors = read(checkpoint)
    header = header_of(tensors)
    header[QUERY]["note"] = float("nan")
    write(checkpoint / "model.safetensors", tensors, header)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a safetensors file that MLX reads"):
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


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"])
@pytest.mark.parametrize("size", [10**9, 10**7 - 4 * 7, 0])
def test_absurd_sizes_allocate_nothing(key: str, size: int, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {key: size}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError):
        encode(checkpoint)
    # In KiB on Linux and in bytes on macOS, where the bound is the stricter.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "tf_model.h5", "model.gguf"])
def test_other_formats_are_a_hint(name: str, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / name)
    with pytest.raises(CheckpointError, match=rf"has no model\.safetensors\. It has {name}, which mlx_embed does not"):
        encode(checkpoint)


@pytest.mark.parametrize(
    "quantization",
    [True, 8, {}, {"bits": 8}, {"bits": 3, "group_size": 32}, {"bits": 8.0, "group_size": 32}, {"bits": [8]}],
)
def test_a_quantization_that_is_not_read(quantization: object, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"quantization": quantization}))
    with pytest.raises(CheckpointError, match=r'config.json has "quantization": .*; mlx_embed reads 4 or 8 bits'):
        encode(checkpoint)


def test_weights_said_to_be_quantized_that_are_not(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"quantization": {"bits": 8, "group_size": 32}}))
    with pytest.raises(CheckpointError, match=r"lacks .*model\.safetensors"):
        encode(checkpoint)
