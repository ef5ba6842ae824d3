"""convert: what it writes, that it loads with the source's vectors, and what it refuses before or while writing."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import (
    CheckpointError,
    EmbeddingModel,
    MLXEmbedError,
    ModelNotFoundError,
    cli,
    convert,
)
from mlx_embed.checkpoint import weights
from mlx_embed.checkpoint.folder import E5_PROMPTS
from mlx_embed.destination import RECORD
from tests.checkpoints import edit
from tests.conftest import DATA, ROOT, TINY

TEXTS = ["the wing", "", "a query of code", "boundary layer " * 20]
SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT whose rows of 128 and 256 every group size divides, sharded, with tiny-bert's tokenizer."""
    folder = tmp_path_factory.mktemp("wide")
    rng = np.random.default_rng(3)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / "tiny-bert" / file, folder)
    config = json.loads((DATA / "tiny-bert" / "config.json").read_text()) | SIZES
    (folder / "config.json").write_text(json.dumps(config))
    resized = {32: 128, 48: 256}
    tensors = {}
    for name, array in mx.load(str(DATA / "tiny-bert" / "model.safetensors")).items():
        if ".layer.2." not in name and "pooler" not in name:
            noise = rng.normal(size=[resized.get(n, n) for n in array.shape]) * 0.1
            tensors[name] = mx.array((noise + name.endswith("LayerNorm.weight")).astype(np.float32))
    names = list(tensors)
    for i in range(2):
        mx.save_safetensors(str(folder / f"part-{i}.safetensors"), {name: tensors[name] for name in names[i::2]})
    weight_map = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def encode(folder: Path) -> np.ndarray:
    return EmbeddingModel.from_pretrained(folder, device="cpu").encode(TEXTS, normalize_embeddings=True)


def tree(folder: Path) -> set[str]:
    """What is in it, but for the record of what `convert` wrote."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} - {RECORD}


def contents(folder: Path) -> Mapping[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def dtypes(folder: Path) -> set[str]:
    return {tensor.dtype for tensor in weights.read_headers(folder)}


@pytest.mark.parametrize("name", TINY)
def test_the_same_files_and_the_same_vectors(name: str, tmp_path: Path) -> None:
    report = convert(DATA / name, tmp_path / "new" / "parents" / "a")
    destination = tmp_path / "new" / "parents" / "a"
    assert tree(destination) == tree(DATA / name)
    assert [path.name for path in destination.parent.iterdir()] == ["a"], "nothing is left beside it"
    assert np.array_equal(encode(destination), encode(DATA / name))
    assert report.min_cosine == pytest.approx(1, abs=1e-6)
    assert report.destination == destination
    assert report.source_bytes == (DATA / name / "model.safetensors").stat().st_size
    assert report.destination_bytes == (destination / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("dtype", "stored", "least"),
    [("float32", "F32", 1 - 1e-6), ("float16", "F16", 0.9999), ("bfloat16", "BF16", 0.999)],
)
def test_dtypes(dtype: str, stored: str, least: float, wide: Path, tmp_path: Path) -> None:
    report = convert(wide, tmp_path / "a", dtype=dtype)
    assert dtypes(tmp_path / "a") == {stored}
    assert not list(tmp_path.rglob("*.index.json")), "one file has taken the shards' place"
    ratio = {"F32": 1, "F16": 0.5, "BF16": 0.5}[stored]
    assert report.destination_bytes == pytest.approx(ratio * report.source_bytes, rel=0.02)
    assert least <= report.min_cosine <= 1 + 1e-6
    assert (encode(tmp_path / "a") * encode(wide)).sum(axis=1).min() >= least


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize(("bits", "least"), [(8, 0.999), (4, 0.9)])
def test_quantized(bits: int, least: float, group_size: int, wide: Path, tmp_path: Path) -> None:
    report = convert(wide, tmp_path / "a", quantize=bits, group_size=group_size)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["quantization"] == {"bits": bits, "group_size": group_size, "mode": "affine"}
    assert "U32" in dtypes(tmp_path / "a")
    # A group of weights shares a scale and a bias of 32 bits each; norms, positions and biases stay as they are.
    expected = (bits + 64 / group_size) / 32
    assert expected < report.destination_bytes / report.source_bytes < expected + 0.08
    assert least <= report.min_cosine < 1 - 1e-7, "close, and not the source itself"
    assert (encode(tmp_path / "a") * encode(wide)).sum(axis=1).min() >= least


def test_quantized_in_half_precision(wide: Path, tmp_path: Path) -> None:
    convert(wide, tmp_path / "a", quantize=8, dtype="float16")
    assert dtypes(tmp_path / "a") == {"U32", "F16"}
    assert (encode(tmp_path / "a") * encode(wide)).sum(axis=1).min() >= 0.999


def test_a_quantized_source(wide: Path, tmp_path: Path) -> None:
    convert(wide, tmp_path / "a", quantize=8)
    convert(tmp_path / "a", tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    convert(tmp_path / "a", tmp_path / "c", dtype="float16")
    assert (encode(tmp_path / "a") * encode(tmp_path / "c")).sum(axis=1).min() >= 0.9999
    with pytest.raises(ValueError, match="is quantized already; convert from the original checkpoint"):
        convert(tmp_path / "a", tmp_path / "d", quantize=4)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("bare", [True, False])
def test_e5_keeps_its_prompts_under_any_name(bare: bool, checkpoint: Path, tmp_path: Path) -> None:
    source = checkpoint.rename(tmp_path / "e5-small-v2")
    if bare:
        (source / "modules.json").unlink()
        (source / "sentence_bert_config.json").write_text('{"max_seq_length": 4}')
    convert(source, tmp_path / "mine")
    model = EmbeddingModel.from_pretrained(tmp_path / "mine", device="cpu")
    assert model.checkpoint.prompts == E5_PROMPTS
    original = EmbeddingModel.from_pretrained(source, device="cpu")
    assert np.array_equal(model.encode_query(TEXTS), original.encode_query(TEXTS))
    assert not np.array_equal(model.encode_query(TEXTS), model.encode(TEXTS))


def test_what_travels(checkpoint: Path, tmp_path: Path) -> None:
    for file in ("README.md", "LICENSE.txt", "vocab.txt", "sentencepiece.model"):
        (checkpoint / file).write_text("kept")
    for file in ("pytorch_model.bin", "modeling_custom.py", "onnx/model.onnx", "onnx/config.json", ".git/a.json"):
        (checkpoint / file).parent.mkdir(exist_ok=True)
        (checkpoint / file).write_text("left")
    convert(checkpoint, tmp_path / "a")
    found = contents(tmp_path / "a")
    assert b"left" not in found.values()
    assert sum(content == b"kept" for content in found.values()) == 4


def test_a_module_in_shards(checkpoint: Path, tmp_path: Path) -> None:
    """The index of a module's shards travels with them."""
    place = checkpoint / "2_Normalize"
    (place / "config.json").write_text(json.dumps({"in_features": 32, "out_features": 16}))
    entries = json.loads((checkpoint / "modules.json").read_text())
    entries[2]["type"] = "sentence_transformers.models.Dense"
    (checkpoint / "modules.json").write_text(json.dumps(entries))
    tensors = {"linear.weight": mx.ones((16, 32)), "linear.bias": mx.arange(16) * 0.1}
    for name, array in tensors.items():
        mx.save_safetensors(str(place / f"{name}.safetensors"), {name: array})
    index = {"weight_map": {name: f"{name}.safetensors" for name in tensors}}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    convert(checkpoint, tmp_path / "a")
    assert np.array_equal(encode(tmp_path / "a"), encode(checkpoint))


def test_an_empty_destination_and_overwrite_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    convert(DATA / "tiny-bert", tmp_path / "a")
    convert(DATA / "tiny-bert", tmp_path / "b", overwrite=True)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") == tree(DATA / "tiny-bert")


@pytest.mark.parametrize("place", [".", "sub/mlx", "..", "link"])
def test_source_and_destination_apart(place: str, checkpoint: Path) -> None:
    """Neither is the other, nor inside it: replacing one would lose or copy the other."""
    outside = checkpoint.parent
    (outside / "config.json").write_text("{}")
    (outside / "link").symlink_to(checkpoint)
    source, destination = (outside / "link", checkpoint) if place == "link" else (checkpoint, checkpoint / place)
    before = contents(checkpoint)
    with pytest.raises(ValueError, match=r"the same folder|inside the other"):
        convert(source, destination, overwrite=True)
    assert contents(checkpoint) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "dtype 'float64' is not one of float32, float16, bfloat16"),
        ({"quantize": 3}, r"quantize takes \(4, 8\) bits in groups of \(32, 64, 128\), got 3 and 64"),
        ({"quantize": 8, "group_size": 16}, "got 8 and 16"),
        ({"quantize": 8}, r"group_size 64 does not divide the model's hidden_size 32; choose one of \[32\]"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        convert(DATA / "tiny-bert", tmp_path / "a" / "b", **options)
    assert not list(tmp_path.iterdir())


def test_bad_sources(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="There is no folder"):
        convert(tmp_path / "absent", tmp_path / "out")
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        convert(checkpoint, tmp_path / "out")
    (checkpoint / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is cut off"):
        convert(checkpoint, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (1e6, r"tensor 'embeddings\.\w+\.weight' of .* holds NaN or infinite numbers in float16; .*, or use float32"),
        (1e-9, r"vectors differ from the source's .*; nothing was written"),
    ],
    ids=["overflow", "underflow"],
)
def test_a_result_with_other_vectors_is_not_put_in_place(
    scale: float, message: str, checkpoint: Path, tmp_path: Path
) -> None:
    """Embeddings that float16 cannot hold: they would become infinite, or zero."""
    path = checkpoint / "model.safetensors"
    tensors = {name: mx.array(np.array(array)) for name, array in mx.load(str(path)).items()}
    for kind in ("word", "position", "token_type"):
        tensors[f"embeddings.{kind}_embeddings.weight"] *= scale
    mx.save_safetensors(str(path), tensors)
    edit(checkpoint, layer_norm_eps=1e-30)  # else embeddings so small would count for nothing
    with pytest.raises(MLXEmbedError, match=message):
        convert(checkpoint, tmp_path / "out", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_error_while_writing_leaves_nothing(
    overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if overwrite:
        convert(DATA / "tiny-mpnet", tmp_path / "out")
    before = contents(tmp_path)
    save = weights.save_encoder

    def full(*arguments: Any) -> None:
        save(*arguments)
        raise OSError("No space left on device")

    monkeypatch.setattr(weights, "save_encoder", full)
    with pytest.raises(OSError, match="No space left"):
        convert(DATA / "tiny-bert", tmp_path / "out", overwrite=overwrite)
    assert contents(tmp_path) == before


def test_nothing_is_said_of_long_texts(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """The sample that verifies is too long for short models; that is no concern of the user's."""
    convert(DATA / "tiny-bert", tmp_path / "a")
    assert not recwarn.list


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, destination = str(DATA / "tiny-bert"), str(tmp_path / "a")
    assert cli.main(["convert", source, destination, "--quantize", "8", "--group-size", "32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"wrote {destination}"
    assert re.fullmatch(r"weights: 0.1 MiB -> 0.1 MiB \(\d\d%\)", lines[1])
    assert 0.99 < float(lines[2].removeprefix("lowest cosine to the original, over sample texts: ")) <= 1
    assert cli.main(["convert", source, destination]) == 2
    assert lines[3] == (
        "Smaller on disk, and in a GPU's memory; on a CPU not in memory, where kernels compute in float32."
    )
    model = EmbeddingModel.from_pretrained(destination, device="cpu")
    assert repr(model).endswith(", weights of 8 bits)")
    assert "bits" not in repr(EmbeddingModel.from_pretrained(source, device="cpu"))
    assert "mlx-embed: " in (error := capsys.readouterr().err)
    assert "--overwrite" in error
    assert cli.main(["convert", source, destination, "--overwrite", "--dtype", "float16"]) == 0
    assert dtypes(tmp_path / "a") == {"F16"}
    assert cli.main(["convert", str(tmp_path / "absent"), destination]) == 2


def test_the_script(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/convert_weights.py", str(DATA / "tiny-bert"), str(tmp_path / "a")]
    options: dict[str, Any] = {"capture_output": True, "text": True, "cwd": ROOT, "check": False}
    options["env"] = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, **options)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"wrote {tmp_path / 'a'}\n")
    assert np.array_equal(encode(tmp_path / "a"), encode(DATA / "tiny-bert"))
    run = subprocess.run([*command, "--quantize", "5"], **options)
    assert run.returncode == 2
    assert "invalid choice: 5" in run.stderr


def test_no_destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path("") is the current folder, which nobody named."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="destination is empty"):
        convert(DATA / "tiny-bert", "")
    assert not list(tmp_path.iterdir())
