"""Quantized files of mlx-embeddings and mlx-lm, and ones put together here: as MLX computes them, or refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_embed import CheckpointError, EmbeddingModel, UnsupportedModelError, convert
from mlx_embed.checkpoint import read_checkpoint, weights
from mlx_embed.checkpoint.quantization import AFFINE_BITS, FLOAT_MODES
from tests.checkpoints import edit, encoder, read
from tests.conftest import DATA
from tests.mlx_embed.architectures.cases import WAYS

ODD = DATA / "odd/quantized"
with np.load(DATA / "odd/quantized.npz") as _file:
    IDS = np.array(json.loads(str(_file["meta"]))["ids"][0], np.int32)
    HIDDEN = {name: _file[name][0] for name in _file.files if name != "meta"}
NAMES = list(HIDDEN)
QUERY = "encoder.layer.0.attention.self.query"
TEXTS = ["the wing", "heat flow of a boundary layer", ""]


def complete(name: str, folder: Path) -> Path:
    """A copy of a folder of quantized weights, with a tokenizer."""
    shutil.copytree(ODD / name, folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / "tiny-bert" / file, folder)
    return folder


def hidden(model: EmbeddingModel) -> np.ndarray:
    """The encoder's hidden states of IDS, by the model's engine."""
    engine = model.engine
    if engine.name == "native":
        cu_seqlens = np.array([0, len(IDS)], np.int32)
        return np.asarray(engine.encoder(IDS, cu_seqlens, len(IDS)))
    with mx.stream(mx.cpu):
        cu_seqlens = mx.array([0, len(IDS)], dtype=mx.int32)
        return np.array(engine.encoder(mx.array(IDS), cu_seqlens, len(IDS)).astype(mx.float32))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_files_of_others(name: str, way: str, tmp_path: Path) -> None:
    """Hidden states as their own code computes them.

    mlx-lm's are in float16, rounded after each of its ops. mlx-embeddings adds up embeddings in bfloat16 where the mode
    is one of float numbers, which rounds those of mxfp8 and nvfp4, and goes on in float32.
    """
    options: dict[str, Any] = {"dtype": "float16"} if name.startswith("qwen3") else {}
    model = EmbeddingModel.from_pretrained(complete(name, tmp_path / "a"), device="cpu", **options, **WAYS[way])
    tolerance = 4e-3 if name in ("bert-mxfp8", "bert-nvfp4") else 1e-2 if name.startswith("qwen3") else 1e-5
    assert np.abs(hidden(model) - HIDDEN[name]).max() <= tolerance


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_models_dtype_holds(dtype: str, name: str, tmp_path: Path) -> None:
    """Embeddings of mxfp4 and the like come as bfloat16 of MLX, whatever the rest is."""
    model = EmbeddingModel.from_pretrained(
        complete(name, tmp_path / "a"), device="cpu", dtype=dtype, engine="reference"
    )
    floats = {
        x.dtype for _, x in tree_flatten(model.engine.encoder.parameters()) if mx.issubdtype(x.dtype, mx.floating)
    }
    assert floats == {getattr(mx, dtype)}
    assert np.isfinite(model.encode(TEXTS)).all()


@pytest.mark.parametrize("name", [name for name in HIDDEN if name.startswith("bert")])
def test_weights_bit_for_bit(name: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(complete(name, tmp_path / "a"))
    tensors, how = read(tmp_path / "a"), checkpoint.config["quantization"]
    loaded = weights.load_encoder(checkpoint, mx.float32)

    def expected(path: str) -> mx.array:
        parts = [tensors[f"{path}.weight"], tensors[f"{path}.scales"], tensors.get(f"{path}.biases")]
        parts = [x.astype(mx.float32) if x is not None and x.dtype == mx.float16 else x for x in parts]
        return mx.dequantize(*parts, **how, dtype=mx.float32)

    def found(layer: nn.Module) -> mx.array:
        if "scales" not in layer:
            return layer.weight
        return mx.dequantize(layer.weight, layer.scales, layer.get("biases"), **how, dtype=mx.float32)

    query, key, value = mx.split(found(loaded.layers[0].attention.qkv), 3)
    for path, array in (
        (QUERY, query),
        (QUERY.replace("query", "key"), key),
        (QUERY.replace("query", "value"), value),
        ("encoder.layer.0.intermediate.dense", found(loaded.layers[0].up)),
        ("embeddings.word_embeddings", found(loaded.embeddings.word_embeddings)),
        ("embeddings.position_embeddings", found(loaded.embeddings.position_embeddings)),
    ):
        assert mx.array_equal(array, expected(path))


def requantize(folder: Path, how: dict[str, dict[str, Any] | None]) -> Path:
    """tiny-bert's float32 weights, these layers quantized, by their paths in the file; None leaves one as it is."""
    tensors = {name: array.astype(mx.float32) for name, array in read(folder).items()}
    stated: dict[str, Any] = {"group_size": 32, "bits": 8}
    for path, options in how.items():
        if options is not None:
            weight, scales, *biases = mx.quantize(tensors.pop(f"{path}.weight"), **options)
            tensors |= {f"{path}.weight": weight, f"{path}.scales": scales}
            tensors |= {f"{path}.biases": x for x in biases}
        stated[path] = options or False
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "mlx"})
    return edit(folder, quantization=stated)


def plain(folder: Path, source: Path) -> np.ndarray:
    """Vectors of the same weights, quantized layers as floats."""
    shutil.copytree(source, folder)
    tensors = read(folder)
    stated = json.loads((folder / "config.json").read_text())["quantization"]
    for name in [name for name in tensors if name.endswith(".scales")]:
        path = name.removesuffix(".scales")
        packed = [tensors.pop(f"{path}.{part}", None) for part in ("weight", "scales", "biases")]
        how = stated[path] if isinstance(stated.get(path), dict) else {"group_size": 32, "bits": 8}
        tensors[f"{path}.weight"] = mx.dequantize(*packed, **how, dtype=mx.float32)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return EmbeddingModel.from_pretrained(edit(folder, quantization=None), device="cpu").encode(TEXTS)


AFFINE = [{"group_size": 32, "bits": bits} for bits in AFFINE_BITS]
FLOATS = [{"group_size": group, "bits": bits, "mode": mode} for mode, (bits, group) in FLOAT_MODES.items()]
DOWN, WORDS = "encoder.layer.1.intermediate.dense", "embeddings.word_embeddings"
KEY, VALUE = QUERY.replace("query", "key"), QUERY.replace("query", "value")
MIXED: dict[str, dict[str, dict[str, Any] | None]] = {
    **{f"{how}": {QUERY: how, KEY: how, VALUE: how, DOWN: how, WORDS: how} for how in AFFINE + FLOATS},
    "one of three": {QUERY: AFFINE[2]},
    "of three, each another": {QUERY: AFFINE[2], KEY: FLOATS[0], VALUE: AFFINE[5]},
    "of three, one in another way": {QUERY: FLOATS[2], KEY: FLOATS[2], VALUE: AFFINE[3]},
    "layers": {DOWN: AFFINE[0], WORDS: AFFINE[5], "encoder.layer.2.attention.output.dense": FLOATS[1]},
    "said not to be": {DOWN: AFFINE[1], QUERY: None},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MIXED)
def test_mixed_layers(name: str, way: str, checkpoint: Path, tmp_path: Path) -> None:
    requantize(checkpoint, MIXED[name])
    found = EmbeddingModel.from_pretrained(checkpoint, device="cpu", **WAYS[way]).encode(TEXTS)
    assert np.abs(found - plain(tmp_path / "plain", checkpoint)).max() <= 1e-5


@pytest.mark.parametrize("name", ["of three, each another", "layers", str(FLOATS[2])])
def test_converted(name: str, checkpoint: Path, tmp_path: Path) -> None:
    """Under this package's names config.json says of each layer what it then is."""
    requantize(checkpoint, MIXED[name])
    expected = EmbeddingModel.from_pretrained(checkpoint, device="cpu").encode(TEXTS)
    convert(checkpoint, tmp_path / "b")
    assert np.abs(EmbeddingModel.from_pretrained(tmp_path / "b", device="cpu").encode(TEXTS) - expected).max() <= 1e-5
    with pytest.raises(ValueError, match="is quantized already"):
        convert(checkpoint, tmp_path / "c", quantize=8)


@pytest.mark.parametrize("method", ["awq", "gptq", "compressed-tensors", "bitnet", "modelopt", "bitsandbytes", None])
def test_quantized_by_other_software(method: str | None, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text()) | {"quantization_config": {"quant_method": method}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match=f'"quant_method": {method!r}; mlx_embed reads MLX\'s own'):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")


@pytest.mark.parametrize(
    ("changes", "stated", "message"),
    [
        ({}, {QUERY: False}, f"scales' of .* belongs to a quantized layer, but config.json says that {QUERY} is not"),
        ({}, None, 'belongs to a quantized layer, but config.json has no "quantization"'),
        ({}, {"embeddings.LayerNorm": {"bits": 8, "group_size": 32}}, "there is no embeddings.LayerNorm.scales"),
        ({}, {QUERY: {"bits": 9, "group_size": 32}}, "'bits': 9"),
        ({}, {QUERY: {"bits": 4, "group_size": 32}}, "has shape|is not affine, 4 bits in groups of 32"),
        ({f"{QUERY}.biases": None}, {}, "lacks .*attention.(q|self.query).biases"),
        ({f"{DOWN}.scales": mx.ones((48, 2))}, {}, r"scales' of .* has shape \(48, 2\)"),
        ({f"{DOWN}.weight": mx.ones((48, 8))}, {}, "has dtype F32, where U32 is needed"),
        ({f"{DOWN}.global_scale": mx.ones(())}, {}, "global_scale' of .* scales nvfp4 once more"),
        ({"encoder.layer.0.x.scales": mx.ones((2, 1))}, {}, "which the architecture does not have"),
    ],
)
def test_what_does_not_fit(
    changes: dict[str, mx.array | None], stated: dict[str, Any] | None, message: str, checkpoint: Path
) -> None:
    how = {"group_size": 32, "bits": 8}
    requantize(checkpoint, {QUERY: how, KEY: how, VALUE: how, DOWN: how})
    tensors = read(checkpoint) | changes
    kept = {name: array for name, array in tensors.items() if array is not None}
    mx.save_safetensors(str(checkpoint / "model.safetensors"), kept)
    edit(checkpoint, quantization=None if stated is None else how | stated)
    with pytest.raises(CheckpointError, match=message):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")


@pytest.mark.parametrize("name", ["modernbert", "gte", "nomic_bert", "mpnet"])
def test_every_layer_of_other_encoders(name: str, tmp_path: Path) -> None:
    """Whatever can be is quantized, embeddings and biases by distance too."""
    folder = encoder(name, tmp_path / "a")
    tensors = read(folder)
    paths = [key.removesuffix(".weight") for key, x in tensors.items() if x.ndim == 2 and x.shape[1] % 32 == 0]
    how: dict[str, Any] = {"group_size": 32, "bits": 8}
    requantize(folder, dict.fromkeys([path for path in paths if "pooler" not in path], how))
    expected = plain(tmp_path / "plain", folder)
    for options in WAYS.values():
        found = EmbeddingModel.from_pretrained(folder, device="cpu", **options).encode(TEXTS)
        assert np.abs(found - expected).max() <= 1e-5
