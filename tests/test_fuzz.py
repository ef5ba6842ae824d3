"""Damaged checkpoints and arbitrary Unicode: one clear error or a sound result, never a crash."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CheckpointError, CrossEncoder, EmbeddingModel
from tests.checkpoints import STACKS, encoder, reranker, with_modules
from tests.conftest import DATA, ROOT
from tests.mlx_embed.architectures.cases import BASES, DECODERS

WRONG: list[Any] = [None, True, -1, 0, 1.5, 10**9, 10**30, "x", [], {}, [{}], {"a": 1}]
JSON_FILES = [
    "config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
]


def loads_or_says_why(folder: Path) -> bool:
    """Whether it loads, and then gives finite vectors; anything but a CheckpointError fails the test.

    Weights may be finite and yet so large that sums overflow: then, and only then, vectors may not be.
    """
    try:
        model = EmbeddingModel.from_pretrained(folder, device="cpu")
    except CheckpointError:
        return False
    vectors = model.encode(["the wing", "", "heat of the boundary layer"])
    assert vectors.shape == (3, model.dimension)
    assert np.isfinite(vectors).all() or largest_weight(folder) > 1e15
    return True


def largest_weight(folder: Path) -> float:
    """Of all tensors in the folder."""
    arrays = [x for path in folder.rglob("*.safetensors") for x in mx.load(str(path)).values()]
    return max(float(mx.abs(x.astype(mx.float32)).max()) for x in arrays)


@pytest.mark.parametrize("kind", ["loads", "texts", "calls"])
def test_the_fuzzer_finds_nothing(kind: str) -> None:
    """scripts/fuzz.py on 200 new cases of a kind; it prints the seed, and what repeats a failure."""
    counts = {"loads": 0, "texts": 0, "calls": 0} | {kind: 200}
    options = [text for name, count in counts.items() for text in (f"--{name}", str(count))]
    command = [sys.executable, "scripts/fuzz.py", *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(rf"^200 {kind}: \d+ refused, \d+ sound, 0 failed", run.stdout, re.MULTILINE)


FAULTS = {
    "a crash": "os.kill(os.getpid(), 11)",
    "a hang": "time.sleep(1000)",
    "an exception": "raise KeyError('x')",
    "an exit": "os._exit(0)",
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> dict[str, "subprocess.CompletedProcess[str]"]:
    """What the fuzzer says of each fault, beside the one that is waited for."""

    def run(fault: str) -> "subprocess.CompletedProcess[str]":
        folder = tmp_path_factory.mktemp("fuzz")
        script = (ROOT / "scripts" / "fuzz.py").read_text()
        changed = script.replace("SECONDS = 60", "SECONDS = 3").replace("parents[1]", "parents[0]")
        changed = changed.replace(
            "    texts = [string(rng) for",
            f"    embed.count = getattr(embed, 'count', 0) + 1\n    if embed.count == 3: {FAULTS[fault]}\n"
            "    texts = [string(rng) for",
        )
        assert "embed.count" in changed
        (folder / "fuzz.py").write_text(changed)
        for name in ("mlx_embed", "custom_kernels", "tests"):
            (folder / name).symlink_to(ROOT / name)
        command = [sys.executable, "fuzz.py", "--loads", "0", "--texts", "4", "--calls", "0", "--seed", "1"]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(FAULTS, pool.map(run, FAULTS), strict=True))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fuzzer_reports(fault: str, faulty: dict[str, "subprocess.CompletedProcess[str]"]) -> None:
    """One bad case of four is one failure, which is named, and the others still run."""
    run = faulty[fault]
    assert run.returncode == 1, run.stdout + run.stderr
    assert "texts:2 " in run.stdout
    assert "4 texts: 0 refused, 3 sound, 1 failed" in run.stdout


@pytest.mark.parametrize("file", JSON_FILES)
@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "null", '"x"', "3", "\0", "[" * 100_000, '{"a": 1e999}', "\ufeff{}"]
)
def test_a_config_file_of_the_wrong_kind(file: str, content: str, tmp_path: Path) -> None:
    with_modules(tmp_path, STACKS["dense"])
    (tmp_path / file).write_text(content)
    loads_or_says_why(tmp_path)


@pytest.mark.parametrize("file", JSON_FILES)
def test_every_value_of_the_wrong_kind(file: str, tmp_path: Path) -> None:
    with_modules(tmp_path, STACKS["dense"])
    path = tmp_path / file
    whole = json.loads(path.read_text())
    entries = whole if isinstance(whole, list) else [whole]
    refused = 0
    for entry in entries:
        for key in list(entry):
            good = entry[key]
            for value in WRONG:
                entry[key] = value
                path.write_text(json.dumps(whole))
                refused += not loads_or_says_why(tmp_path)
            entry[key] = good
    assert refused or file in ("sentence_bert_config.json", "modules.json")


@pytest.mark.parametrize("name", [name for name in BASES if name not in DECODERS])
def test_every_value_of_an_encoders_config(name: str, tmp_path: Path) -> None:
    path = encoder(name, tmp_path) / "config.json"
    whole = json.loads(path.read_text())
    rng = np.random.default_rng()
    for key in whole:
        for value in (0, 10**9, WRONG[rng.integers(len(WRONG))]):
            path.write_text(json.dumps(whole | {key: value}))
            loads_or_says_why(tmp_path)


def test_damaged_weights(tmp_path: Path) -> None:
    with_modules(tmp_path, STACKS["dense"])
    rng = np.random.default_rng()
    for path in (tmp_path / "model.safetensors", tmp_path / "2_Dense" / "model.safetensors"):
        whole = path.read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        for cut in [0, 1, 7, 8, 9, header - 1, header, len(whole) - 1, *rng.integers(len(whole), size=10)]:
            path.write_bytes(whole[:cut])
            assert not loads_or_says_why(tmp_path), cut
        for place in rng.integers(header, size=60):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << rng.integers(8)
            path.write_bytes(bytes(flipped))
            loads_or_says_why(tmp_path)
        path.write_bytes((10**18).to_bytes(8, "little") + whole[8:])
        assert not loads_or_says_why(tmp_path)
        path.write_bytes(whole)
    assert loads_or_says_why(tmp_path)


@pytest.mark.parametrize("shard", ["absent.safetensors", "../model.safetensors", "/etc/passwd", "", 3, None, ["a"]])
def test_an_index_that_names_no_shard(shard: Any, tmp_path: Path) -> None:
    with_modules(tmp_path, STACKS["dense"])
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    assert not loads_or_says_why(tmp_path)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "1_Pooling/../..", "absent"])
def test_a_module_outside_the_folder(path: str, tmp_path: Path) -> None:
    with_modules(tmp_path, STACKS["dense"])
    listed = json.loads((tmp_path / "modules.json").read_text())
    listed[1]["path"] = path
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    assert not loads_or_says_why(tmp_path)


def test_any_unicode() -> None:
    hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
    from hypothesis import strategies

    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")

    @hypothesis.settings(max_examples=150, deadline=None, database=None)
    @hypothesis.given(strategies.lists(strategies.text(strategies.characters(codec=None), max_size=120), max_size=6))
    def check(texts: list[str]) -> None:
        vectors = model.encode(texts, long_text="mean_of_chunks")
        assert vectors.shape == (len(texts), 32)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        single = np.array([model.encode(text, long_text="mean_of_chunks") for text in texts]).reshape(vectors.shape)
        assert np.abs(vectors - single).max(initial=0) <= 1e-5

    check()


def test_any_unicode_in_pairs(tmp_path: Path) -> None:
    hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
    from hypothesis import strategies

    model = CrossEncoder.from_pretrained(reranker("bert", 1, tmp_path), device="cpu")
    text = strategies.text(strategies.characters(codec=None), max_size=90)

    @hypothesis.settings(max_examples=60, deadline=None, database=None)
    @hypothesis.given(strategies.lists(strategies.tuples(text, text), max_size=4))
    def check(pairs: list[tuple[str, str]]) -> None:
        scores = model.predict(pairs)
        assert scores.shape == (len(pairs),)
        assert np.isfinite(scores).all()

    check()
