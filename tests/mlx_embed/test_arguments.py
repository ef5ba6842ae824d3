"""Numbers: any whole number will do, and anything else is a TypeError that names the argument. Files to write."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel, EmbeddingModelType, MultiVectors, SparseVectors, convert
from mlx_embed.arguments import finite_number, output_files, path_of, row_of, whole_number
from tests.checkpoints import reranker
from tests.conftest import DATA

TEXTS = ["the wing " * 30, "a", "boundary layer"]
PAIRS = [("the wing", "stalls"), ("a", "recipe"), ("heat", "flow")]


@pytest.mark.parametrize("value", [3, np.int64(3), np.int32(3), np.uint8(3), np.array(3)])
def test_whole_numbers(value: Any) -> None:
    assert whole_number("n", value) == 3
    assert type(whole_number("n", value)) is int


@pytest.mark.parametrize("value", [3.0, np.float32(3), "3", True, np.True_, None, [3], np.array([3]), b"3"])
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^n is .*, where a whole number is needed\.$"):
        whole_number("n", value)


@pytest.mark.parametrize("value", [2, 2.0, "2", "2.0", np.float32(2)])
def test_finite_numbers(value: Any) -> None:
    assert finite_number("x", value) == 2
    assert type(finite_number("x", value)) is float


@pytest.mark.parametrize("value", [float("nan"), "nan", "-inf", 10**400, "two", None, [1, 2]])
def test_what_is_no_finite_number(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^x .* is not a finite number\.$"):
        finite_number("x", value)


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    return CrossEncoder.from_pretrained(reranker("bert", 1, tmp_path_factory.mktemp("reranker")), device="cpu")


Call = Callable[[EmbeddingModel, CrossEncoder, Path, Any], Any]
CALLS: dict[str, tuple[Call, int]] = {
    "batch_tokens": (lambda model, _, __, n: model.encode(TEXTS, batch_tokens=n), 64),
    "batch_size": (lambda model, _, __, n: model.encode(TEXTS, batch_size=n), 2),
    "truncate_dim": (lambda model, _, __, n: model.encode(TEXTS, truncate_dim=n), 8),
    "chunk_overlap": (lambda model, _, __, n: model.encode(TEXTS, long_text="mean_of_chunks", chunk_overlap=n), 5),
    "batch_size of pairs": (lambda _, cross_encoder, __, n: cross_encoder.predict(PAIRS, batch_size=n), 2),
    "batch_tokens of pairs": (lambda _, cross_encoder, __, n: cross_encoder.predict(PAIRS, batch_tokens=n), 64),
    "top_k": (
        lambda _, cross_encoder, __, n: [
            entry["corpus_id"] for entry in cross_encoder.rank("the wing", ["a", "b", "c"], top_k=n)
        ],
        2,
    ),
    "max_seq_length": (
        lambda _, __, ___, n: EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", max_seq_length=n).encode(
            TEXTS
        ),
        9,
    ),
    "group_size": (
        lambda _, __, path, n: convert(DATA / "tiny-bert", path, quantize=8, group_size=n, overwrite=True).min_cosine,
        32,
    ),
    "quantize": (
        lambda _, __, path, n: convert(DATA / "tiny-bert", path, quantize=n, group_size=32, overwrite=True).min_cosine,
        8,
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_number_that_a_caller_may_give(
    name: str, tiny_bert: EmbeddingModel, cross_encoder: CrossEncoder, tmp_path: Path
) -> None:
    call, number = CALLS[name]
    expected = call(tiny_bert, cross_encoder, tmp_path / "a", number)
    for kind in (np.int64, np.int32, np.uint8, np.array):
        assert np.array_equal(call(tiny_bert, cross_encoder, tmp_path / "a", kind(number)), expected)
    for wrong in (float(number), str(number), np.float64(number), True, [number]):
        with pytest.raises(TypeError, match=rf"^{name.split()[0]} is .*, where a whole number is needed\.$"):
            call(tiny_bert, cross_encoder, tmp_path / "a", wrong)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"--json": "nowhere/a.json"}, "--json .*: there is no folder .*nowhere"),
        ({"--json": None, "--html": "folder"}, "--html .*folder is a folder"),
        ({"--html": "read.json"}, "--html .*read.json is read or written already"),
        ({"--html": "folder/../read.json"}, "is read or written already"),
        ({"--html": "link.json"}, "is read or written already"),
        ({"--json": "new", "--html": "new"}, "--html .*new is read or written already"),
    ],
)
def test_files_that_are_not_to_be_written(outputs: dict[str, str | None], message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "read.json").touch()
    (tmp_path / "link.json").symlink_to("read.json")
    given = {name: None if file is None else tmp_path / file for name, file in outputs.items()}
    with pytest.raises(ValueError, match=message):
        output_files(given, [tmp_path / "read.json"])
    output_files({"--json": None, "--html": tmp_path / "new", "-o": tmp_path / "other"}, [tmp_path / "read.json"])


def test_paths_are_absolute_and_of_users_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert path_of("x", "a/../b") == tmp_path / "a" / ".." / "b"  # what ".." is depends on links
    assert path_of("x", Path("~/b")) == Path("/home/me/b")
    assert path_of("x", EmbeddingModelType.E5_SMALL_V2) == tmp_path / "intfloat" / "e5-small-v2"
    assert path_of("x", "~nobody-of-this-name/b") == tmp_path / "~nobody-of-this-name" / "b"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "^x is empty, as no name"),
        ("a\0b", "^x has a zero byte, as no name"),
        (None, "^x is a NoneType, where a string or a Path"),
        (b"a", "^x is a bytes, where a string or a Path"),
        (3, "^x is an int, where a string or a Path"),
    ],
)
def test_what_is_no_path(given: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        path_of("x", given)


def test_places_are_as_of_a_list() -> None:
    assert [row_of(place, 3) for place in (0, -1, np.int64(2), -3)] == [0, 2, 2, 0]
    rows: list[Any] = [
        MultiVectors.of([np.zeros((2, 4), dtype=np.float32)] * 3, 4),
        SparseVectors.of([], 9),
    ]
    for vectors in rows:
        for place in (3, -4):
            with pytest.raises(IndexError, match=f"There is no place {place} among {len(vectors)}"):
                vectors[place]
        with pytest.raises(TypeError, match=r"The place is \[0, 1\], a list, where a whole number is needed"):
            vectors[[0, 1]]
    assert [row.shape for row in rows[0]] == [(2, 4)] * 3
    assert rows[0][-1].shape == (2, 4)
