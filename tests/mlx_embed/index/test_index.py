"""What an index holds after texts and files came and went."""

import enum
import shutil
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel
from mlx_embed.errors import ModelNotFoundError, StoreError, StoreLockedError, StoreMismatchError
from mlx_embed.index import Chunk, FileStat, Index, filters
from mlx_embed.index.chunks import Chunking
from mlx_embed.index.commits import Pace
from mlx_embed.index.given import vectors_of
from tests.checkpoints import reranker
from tests.conftest import DATA
from tests.mlx_embed.index.conftest import DIMENSION, ROW_DTYPES, fill, names, texts, vectors

STAT = FileStat(10, 20, "ab" * 32)


def chunks(path: str, *found: str) -> list[Chunk]:
    return [Chunk(text, path, i, i + 1, i + 1, i + 2, ("A", "B"), i, {"n": i}) for i, text in enumerate(found)]


def held(index: Index) -> dict[str, str]:
    """Id to text, by the words that all texts of these tests share."""
    return {hit.id: hit.text for hit in index.search("wing", 1000, mode="text")}


@pytest.mark.parametrize("row_dtype", ROW_DTYPES)
def test_vectors_come_back_as_they_were_given(model: EmbeddingModel, tmp_path: Path, row_dtype: Any) -> None:
    with Index.create(tmp_path / "index", model, row_dtype=row_dtype) as index:
        fill(index, 9)
        found = index.vectors(["t00007", "nobody", "t00002", "t00007"])
        assert set(found) == {"t00002", "t00007"}
        for name, vector in found.items():
            assert np.array_equal(vector, vectors(9)[int(name[1:])])
        assert index.vectors([]) == {}
        with pytest.raises(TypeError, match="ids is a str"):
            index.vectors("t00007")


@pytest.mark.parametrize("row_dtype", ROW_DTYPES)
def test_texts_come_back_as_they_were_given(model: EmbeddingModel, tmp_path: Path, row_dtype: Any) -> None:
    given = {"a": "the wing stalls", "b": "wing \0 of \u2028 an é 🛩", "ç#1": " wing\n"}
    metadata: list[dict[str, Any]] = [{"deep": {"list": [1, 2.5, None]}, "ü": "ß"}, {}, {"n": 2**80}]
    with Index.create(tmp_path / "index", model, row_dtype=row_dtype) as index:
        index.add(list(given), list(given.values()), metadata)
        assert len(index) == 3
    with Index.open(tmp_path / "index", model) as index:
        found = {hit.id: hit for hit in index.search("wing", mode="text")}
        assert {name: hit.text for name, hit in found.items()} == given
        assert [dict(found[name].metadata) for name in given] == metadata
        vector = index.search("the wing stalls", 1, mode="vector")[0]
        assert (vector.id, vector.score, vector.vector_rank) == ("a", pytest.approx(1, abs=1e-6), 1)
        index.check()


class Word(str, enum.Enum):
    WING = "wing"


@pytest.mark.parametrize("kind", [np.str_, Word])
def test_strings_and_numbers_of_other_classes_are_what_they_say(index: Index, kind: Any) -> None:
    wing = kind("wing")
    index.add([wing], [wing], [{wing: wing}])
    index.upsert([wing], [wing], [{wing: wing}])
    stat = FileStat(np.int64(10), np.int64(20), wing)
    index.replace_files([(wing, stat, [Chunk(wing, wing, *map(np.int32, (0, 4, 1, 1)), ordinal=np.int64(0))])])
    index.touch_files([(wing, replace(stat, size=np.int64(11)))])
    index.check()
    assert {name: (hit.path, hit.text) for name, hit in index.get().items()} == {
        "wing": ("", "wing"),
        "wing#0": ("wing", "wing"),
    }
    assert set(index.get([wing])) == set(index.vectors([wing])) == set(index.get(filter={wing: wing})) == {"wing"}
    assert index.files() == {"wing": FileStat(11, 20, "wing")}
    assert (index.delete([wing]), index.remove_files([wing]), len(index)) == (1, 1, 0)
    assert [type(value) for value in (wing, stat.size)] != [str, int]


@pytest.mark.parametrize(
    ("stat", "chunk", "message"),
    [
        (FileStat(1.0, 1, "00"), Chunk("a", "p", 0, 1, 1, 1), "The size of 'p' is 1.0, a float"),  # type: ignore[arg-type]
        (FileStat(1, True, "00"), Chunk("a", "p", 0, 1, 1, 1), "The mtime_ns of 'p' is True, a bool"),
        (FileStat(1, 1, b"00"), Chunk("a", "p", 0, 1, 1, 1), "The sha256 of 'p' is a bytes"),  # type: ignore[arg-type]
        (FileStat(1, 1, "00"), Chunk("a", "p", 0, 1.5, 1, 1), "The byte_end of 'p#0' is 1.5, a float"),  # type: ignore[arg-type]
    ],
)
def test_states_and_places_that_would_not_come_back_are_errors(
    index: Index, stat: FileStat, chunk: Chunk, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        index.replace_files([("p", stat, [chunk])])
    assert (len(index), index.files()) == (0, {})


def test_a_path_that_is_no_unicode_text_is_named(index: Index) -> None:
    with pytest.raises(ValueError, match=r"The path of .* is no Unicode text .*; repair it"):
        index.replace_files([("a\ud800", FileStat(1, 1, "00"), [])])
    with pytest.raises(ValueError, match=r"The path of .* is no Unicode text .*; repair it"):
        index.touch_files([("a\ud800", FileStat(1, 1, "00"))])
    assert index.files() == {}


def test_an_index_and_its_model_stay_where_they_are(
    model: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(DATA / "tiny-bert", tmp_path / "model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    # A name that is not for SQLite to take for a URI.
    index = Index.create("file:index", EmbeddingModel.from_pretrained("model", device="cpu"))
    unread = Index.open(Path("file:index"))
    other = EmbeddingModel.from_pretrained("model", device="cpu")
    monkeypatch.chdir("elsewhere")
    with index:
        index.add(["a"], ["the wing"])
        index.check()
        assert [hit.id for hit in index.search("wing")] == ["a"]
    with unread:
        assert [hit.id for hit in unread.search("wing")] == ["a"]
    with Index.create("beside", other) as beside:
        assert beside.statement.weights == index.statement.weights
    assert index.path == tmp_path / "file:index"
    assert not (tmp_path / "elsewhere" / "file:index").exists()


def test_an_index_is_not_made_by_a_model_whose_files_are_gone(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DATA / "tiny-bert", tmp_path / "model"))
    model = EmbeddingModel.from_pretrained(folder, device="cpu")
    shutil.rmtree(folder)
    with pytest.raises(ModelNotFoundError, match="are no longer in"):
        Index.create(tmp_path / "index", model)
    assert not (tmp_path / "index").exists()


def test_upsert_and_delete(index: Index) -> None:
    index.add(["a", "b", "c"], ["wing one", "wing two", "wing three"])
    index.upsert(["b", "d"], ["wing 2", "wing 4"])
    assert held(index) == {"a": "wing one", "b": "wing 2", "c": "wing three", "d": "wing 4"}
    assert index.delete(["a", "a", "nobody"]) == 1
    assert held(index) == {"b": "wing 2", "c": "wing three", "d": "wing 4"}
    assert len(index) == 3
    assert {hit.id for hit in index.search("wing", mode="vector")} == {"b", "c", "d"}
    index.add(["a"], ["wing again"])
    assert held(index)["a"] == "wing again"
    index.check()


def test_the_vectors_are_those_of_the_model(index: Index, model: EmbeddingModel) -> None:
    documents = texts(30)
    index.add(names(30), documents)
    queries = ["the heat of a cone", "soup"]
    wanted = model.encode_query(queries).astype(np.float64) @ model.encode_document(documents).astype(np.float64).T
    for row, hits in zip(wanted, index.search(queries, 5, mode="vector"), strict=True):
        np.testing.assert_allclose([hit.score for hit in hits], -np.sort(-row)[:5], atol=1e-6)
        np.testing.assert_allclose([row[int(hit.id[1:])] for hit in hits], [hit.score for hit in hits], atol=1e-6)


def test_prompts_are_put_before_texts_and_queries(model: EmbeddingModel, tmp_path: Path) -> None:
    with Index.create(tmp_path / "i", model, query_prompt="query: ", document_prompt="passage: ") as index:
        index.add(["a"], ["the wing"])
        score = index.search("heat", mode="vector")[0].score
    wanted = model.encode("query: heat") @ model.encode("passage: the wing")
    assert score == pytest.approx(float(wanted), abs=1e-6)
    assert abs(score - float(model.encode("heat") @ model.encode("the wing"))) > 1e-4


def test_files_are_replaced_as_a_whole(index: Index) -> None:
    index.replace_files([("a.md", STAT, chunks("a.md", "wing 0", "wing 1", "wing 2"))])
    # A file that comes twice is what it was last.
    twice = [("b.md", FileStat(3, 4, "ab"), chunks("b.md", "wing", "soup")), ("b.md", STAT, chunks("b.md", "wing b"))]
    index.replace_files([*twice, ("c.md", STAT, [])])
    index.replace_files([("a.md", FileStat(1, 2, "cd"), chunks("a.md", "wing 1", "wing new"))])
    assert held(index) == {"a.md#0": "wing 1", "a.md#1": "wing new", "b.md#0": "wing b"}
    assert index.files() == {"a.md": FileStat(1, 2, "cd"), "b.md": STAT, "c.md": STAT}
    hit = index.search("new", mode="text")[0]
    assert (hit.path, hit.byte_start, hit.byte_end, hit.line_start, hit.line_end) == ("a.md", 1, 2, 2, 3)
    assert (hit.heading, hit.metadata) == (("A", "B"), {"n": 1})
    index.touch_files([("b.md", FileStat(3, 4, "ef"))])
    assert index.files()["b.md"] == FileStat(3, 4, "ef")
    assert index.remove_files(["a.md"]) == 2
    assert index.remove_files(["a.md", "c.md"]) == 0
    assert held(index) == {"b.md#0": "wing b"}
    assert list(index.files()) == ["b.md"]
    index.check()


def test_a_text_that_is_there_is_not_embedded_again(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[str] = []
    encode = EmbeddingModel.encode_document

    def counting(self: EmbeddingModel, given: list[str], **options: Any) -> Any:
        embedded.extend(given)
        return encode(self, given, **options)

    monkeypatch.setattr(EmbeddingModel, "encode_document", counting)
    index.replace_files([("a.md", STAT, chunks("a.md", "wing 0", "wing 1", "wing 0"))])
    assert embedded == ["wing 0", "wing 1"]
    index.replace_files([("a.md", STAT, chunks("a.md", "wing 1", "wing 2"))])
    assert embedded[2:] == ["wing 2"]
    index.replace_files([("moved.md", STAT, chunks("moved.md", "wing 2", "wing 1"))])
    assert len(embedded) == 3
    hits = index.search("wing 1", mode="vector")
    assert {hit.id: hit.score for hit in hits}["moved.md#1"] == {hit.id: hit.score for hit in hits}["a.md#0"]


def test_a_commit_has_whole_files_only(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_embed.index.commits.COMMITTED", 5)
    files = [(f"{i}.md", STAT, chunks(f"{i}.md", *(f"wing {i} {j}" for j in range(3)))) for i in range(4)]

    def interrupted() -> Any:
        yield from files[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.replace_files(interrupted())
    assert sorted(index.files()) == ["0.md", "1.md"]
    assert len(index) == 6
    assert index.replace_files(iter(files)) == 4
    assert len(index) == 12


def test_nothing_of_an_addition_that_fails(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(index, 300)

    def broken(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlx_embed.index.transaction.rows.insert", broken)
    with pytest.raises(KeyboardInterrupt):
        index.add(["new"], ["wing"], vectors=vectors(1, 5))
    monkeypatch.undo()
    assert len(index) == 300
    index.check()
    index.add(["new"], ["wing"], vectors=vectors(1, 5))
    assert len(index) == 301
    index.check()


def test_an_index_of_nothing(index: Index) -> None:
    assert len(index) == 0
    for mode in ("vector", "text", "hybrid"):
        assert index.search("wing", mode=mode) == []
        assert index.search(["wing", "heat"], mode=mode) == [[], []]
    assert index.search([]) == []
    index.add([], [])
    assert index.delete([]) == 0
    assert index.replace_files([]) == 0
    index.compact()
    index.check()
    assert index.files() == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], ["x", "y"]), "1 ids, 2 texts and 1 mappings"),
        ((["a", "b", "a"], ["x"] * 3), "'a' is there twice"),
        ((["there"], ["x"]), "'there' is in the index already; use upsert"),
        (("a", ["x"]), "ids is a str"),
        ((["a"], "x"), "texts is a str"),
        (([1], ["x"]), "id of 1 is an int"),
        ((["a"], [None]), "text of 'a' is a NoneType"),
        ((["a"], ["\ud800"]), "text of 'a' is no Unicode"),
        (([""], ["x"]), "An id is empty"),
        ((["a"], ["x"], [[1]]), "metadata of 'a' is a list"),
        ((["a"], ["x"], [{"k": object()}]), "cannot be written as JSON"),
        ((["a"], ["x"], [{"k": float("nan")}]), "cannot be written as JSON"),
    ],
)
def test_bad_texts(index: Index, arguments: Any, message: str) -> None:
    index.add(["there"], ["wing"])
    with pytest.raises((TypeError, ValueError), match=message):
        index.add(*arguments)
    assert len(index) == 1
    index.check()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones((2, DIMENSION)), "shape"),
        (np.ones((1, 5)), "shape"),
        (np.full((1, DIMENSION), np.nan), r"vectors\[0\] has a value that is not finite"),
        ([["x"] * DIMENSION], "where numbers are needed"),
    ],
)
def test_bad_vectors(index: Index, given: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        index.add(["a"], ["x"], vectors=given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (chunks("b.md", "x"), "has the path 'b.md'"),
        (chunks("a.md", "x") * 2, "same ordinal"),
    ],
)
def test_bad_chunks(index: Index, given: list[Chunk], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        index.replace_files([("a.md", STAT, given)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k 0 is not"),
        ({"k": 1.5}, "whole number"),
        ({"mode": "fuzzy"}, "mode 'fuzzy' is not one of"),
        ({"query": [1]}, r"query\[0\] is an int"),
        ({"rerank": "a/name"}, "rerank is a str, where a CrossEncoder is needed"),
    ],
)
def test_bad_searches(index: Index, options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        index.search(**({"query": "wing"} | options))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("a", "ids is a str, where a list"),
        (3, "ids is an int, where a list"),
        (["there", 1], r"ids\[1\] is an int"),
        ([("there",)], r"ids\[0\] is a tuple"),
    ],
)
def test_ids_that_no_text_can_have(index: Index, ids: Any, message: str) -> None:
    """They are not there either, and what SQLite cannot look for it would call damage."""
    index.add(["there"], ["wing"])
    for method in (index.delete, index.get):
        with pytest.raises(TypeError, match=message):
            method(ids)
    assert len(index) == 1


def test_a_reranker_of_several_labels(index: Index, tmp_path: Path) -> None:
    several = CrossEncoder.from_pretrained(reranker("bert", 3, tmp_path / "several"), device="cpu")
    with pytest.raises(ValueError, match="several has 3 labels, and cannot rank"):
        index.search("wing", rerank=several)


def test_documents_whose_probability_rounds_to_one_are_in_the_order_of_their_logits(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = CrossEncoder.from_pretrained(reranker("bert", 1, tmp_path / "reader"), device="cpu")
    index.add(["a", "c", "b", "d"], ["wing 1", "wing 2", "wing 3", "wing 2"])
    logits = {"wing 1": 40.0, "wing 2": 60.0, "wing 3": 20.0}

    def known(pairs: list[tuple[str, str]], *_: Any) -> np.ndarray:
        return np.array([[logits[text]] for _, text in pairs], dtype=np.float32)

    monkeypatch.setattr(reader, "_logits", known)
    found = index.search("wing", rerank=reader)
    assert [(hit.id, hit.score) for hit in found] == [("c", 1), ("d", 1), ("a", 1), ("b", 1)]


def nested(depth: int) -> dict[str, Any]:
    found: Any = 0
    for _ in range(depth):
        found = {"a": found}
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"year": {2020: "x"}}, "has the key 2020, an int; a string is needed"),
        ({"list": [{None: 1}]}, "has the key None"),
        (nested(101), "is nested more than 100 deep"),
        ({"a": [nested(10**5)]}, "is nested more than 100 deep"),
    ],
)
def test_metadata_that_would_not_come_back(index: Index, metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"The metadata of 'b' {message}"):
        index.add(["a", "b"], ["wing", "heat"], [nested(100), metadata])
    assert len(index) == 0
    index.add(["a"], ["wing"], [nested(100)])
    assert index.get()["a"].metadata == nested(100)


def test_an_index_that_is_there_is_told_and_opened_while_another_writes(model: EmbeddingModel, tmp_path: Path) -> None:
    """Only who makes one waits for its lock."""
    with Index.create(tmp_path / "index", model) as writer:
        writer.add(["a"], ["wing"])
        began = time.monotonic()
        with pytest.raises(FileExistsError, match="There is an index"):
            Index.create(tmp_path / "index", model)
        with Index.create(tmp_path / "index", model, exist_ok=True) as reader:
            assert [hit.id for hit in reader.search("wing")] == ["a"]
            with pytest.raises(StoreLockedError):
                reader.delete(["a"])
        assert time.monotonic() - began < 10


def test_making_and_opening(model: EmbeddingModel, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no index in .*nowhere"):
        Index.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    Index.create(tmp_path / "here", model, chunker="lines 1").close()
    with pytest.raises(FileExistsError, match="There is an index"):
        Index.create(tmp_path / "here", model)
    Index.create(tmp_path / "here", model, chunker="lines 1", exist_ok=True).close()
    with pytest.raises(StoreMismatchError, match="chunker 'lines 1', not 'lines 2'"):
        Index.create(tmp_path / "here", model, chunker="lines 2", exist_ok=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt, which is of no index"):
        Index.create(tmp_path / "other", model)
    index = Index.open(tmp_path / "here")
    assert index.chunker == "lines 1"
    index.close()
    index.close()
    with pytest.raises(ValueError, match="was closed"):
        index.search("wing", mode="text")
    with pytest.raises(StoreError, match="File name too long"):
        Index.create(tmp_path / ("x" * 300), model)
    with pytest.raises(ValueError, match="row_dtype 'int4'"):
        Index.create(tmp_path / "x", model, row_dtype="int4")  # type: ignore[arg-type]


def test_the_model_that_the_index_names_is_loaded_when_it_is_needed(model: EmbeddingModel, tmp_path: Path) -> None:
    with Index.create(tmp_path / "index", model) as index:
        index.add(["a"], ["the wing"])
    with Index.open(tmp_path / "index") as index:
        assert index.search("wing", mode="text")[0].id == "a"
        assert index._model is None
        assert index.search("the wing", mode="vector")[0].score == pytest.approx(1, abs=1e-6)
        assert index.model.name == model.name


def test_commits_take_some_seconds() -> None:
    pace = Pace()
    assert pace.chunks == 256
    pace.learn(256, 2.0)
    assert pace.chunks == 1024
    pace.learn(1024, 0.01)
    assert pace.chunks == 4096
    pace.learn(4096, 1000.0)
    assert pace.chunks == 256


def test_more_than_there_are(index: Index) -> None:
    index.add(["a", "b"], ["The wing stalls.", "Lentil soup."])
    assert len(index.search("wing", 10**30, mode="vector")) == 2


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda index: index.remove_files("a.md"), "paths is a str, where a list of strings"),
        (lambda index: index.remove_files([3]), r"paths\[0\] is an int"),
        (lambda index: index.sync(index.path.parent, globs="*.md"), "globs is a str, where a list of strings"),
        (lambda index: index.sync(b"docs"), "folders is a bytes"),
        (lambda index: index.sync(5), "folders is an int"),
        (lambda index: index.sync([5]), "source is an int, where a string or a Path"),
        (lambda index: Chunking.checked(index.model, fields="text"), "fields is a str"),
        (lambda index: filters.parsed("year>=2020"), "conditions is a str"),
    ],
)
def test_a_string_is_no_list_of_its_letters(index: Index, act: Any, message: str) -> None:
    """Each did nothing, or something else, without a word."""
    index.replace_files([("a.md", STAT, chunks("a.md", "wing"))])
    with pytest.raises(TypeError, match=message):
        act(index)
    assert list(index.files()) == ["a.md"]


def test_many_vectors_are_not_copied_again_and_again(index: Index) -> None:
    """Those of a file of a million rows are some gigabytes."""
    given = vectors(100_000) * 2
    tracemalloc.start()
    try:
        found = vectors_of(given, len(given), index.statement)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert peak < 1.5 * given.nbytes
