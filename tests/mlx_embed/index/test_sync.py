"""An index follows its folders: what it has is what a new one would have, and what it says it did is what changed."""

import errno
import gzip
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.errors import StoreMismatchError
from mlx_embed.index import Index, sources
from mlx_embed.index.chunks import Chunking
from mlx_embed.index.sync import Summary
from tests.mlx_embed.index import edits


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def index(tmp_path: Path, tiny_bert: EmbeddingModel) -> Index:
    return Index.create(tmp_path / "index", tiny_bert, chunker=Chunking(24, 4).name)


def put(root: Path, name: str, text: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def names(paths: list[Any]) -> list[Any]:
    return [Path(path).name if isinstance(path, str) else tuple(names(list(path))) for path in paths]


def told(summary: Summary) -> dict[str, Any]:
    lists = {name: names(getattr(summary, name)) for name in ("indexed", "changed", "moved", "removed")}
    return {name: found for name, found in lists.items() if found} | {"unchanged": summary.unchanged}


@pytest.mark.parametrize("seed", range(4))
def test_after_any_edits_an_index_is_as_one_made_anew(
    seed: int, root: Path, index: Index, tmp_path: Path, tiny_bert: EmbeddingModel
) -> None:
    chance = random.Random(seed)
    for step in range(6):
        done = [edits.edit(root, chance) for _ in range(chance.randrange(1, 6))]
        index.sync(root)
        assert not edits.differences(index, edits.made(tmp_path / f"anew{step}", tiny_bert, root)), done
    index.check()


def test_the_summary_tells_what_changed(root: Path, index: Index) -> None:
    for name in ("a.md", "b.md", "c.md", "d.md"):
        put(root, name, f"The text of {name}.")
    assert told(index.sync(root)) == {"indexed": ["a.md", "b.md", "c.md", "d.md"], "unchanged": 0}
    assert told(index.sync(root)) == {"unchanged": 4}
    put(root, "a.md", "Another text.")
    (root / "b.md").rename(root / "e.md")
    (root / "c.md").unlink()
    summary = index.sync(root)
    assert told(summary) == {"changed": ["a.md"], "moved": [("b.md", "e.md")], "removed": ["c.md"], "unchanged": 1}
    assert summary.did_something
    assert str(summary) == "0 indexed, 1 changed, 1 moved, 1 removed, 1 unchanged, 0 failed"
    assert not index.sync(root).did_something
    assert names(list(index.files())) == ["a.md", "d.md", "e.md"]


def test_what_has_not_changed_is_not_read_again(
    root: Path, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root, "a.md", "The wing stalls.")
    monkeypatch.setattr(sources, "_TICK", -(10**18))  # as if it had been written long ago
    index.sync(root)
    index.close()
    monkeypatch.setattr(sources, "read", None)
    monkeypatch.setattr(EmbeddingModel, "from_pretrained", None)
    with Index.open(tmp_path / "index") as again:
        assert told(again.sync(root)) == {"unchanged": 1}


def test_a_time_alone_is_taken_note_of(root: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(root, "a.md", "The wing stalls.")
    index.sync(root)
    assert index.files()[path.as_posix()].mtime_ns == 0  # it was written just now
    monkeypatch.setattr(sources, "_TICK", -(10**18))
    assert told(index.sync(root)) == {"unchanged": 1}
    assert index.files()[path.as_posix()].mtime_ns == sources.changed(path.stat())


def test_a_moved_file_is_not_embedded_again(root: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "a.md", "The wing stalls.")
    index.sync(root)
    monkeypatch.setattr(EmbeddingModel, "encode_document", None)
    (root / "a.md").rename(root / "b.md")
    assert told(index.sync(root)) == {"moved": [("a.md", "b.md")], "unchanged": 0}
    [hit] = index.search("stalls", mode="text")
    assert hit.path.endswith("b.md")
    assert len(index) == 1
    (root / "b.md").rename(root / "c.md")
    put(root, "d.md", "The wing stalls.")
    assert told(index.sync(root)) == {"moved": [("b.md", "c.md")], "indexed": ["d.md"], "unchanged": 0}


def test_a_file_that_cannot_be_looked_at_is_kept(root: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "a.md", "The wing stalls.")
    index.sync(root)

    def failing(path: Path, state: os.stat_result) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sources, "_found", failing)
    summary = index.sync(root)
    assert summary.failed == [((root / "a.md").as_posix(), "Input/output error")]
    assert not summary.removed
    assert len(index) == 1


def test_what_gzip_has_packed(root: Path, index: Index) -> None:
    plain = put(root, "a.jsonl", '{"id": 7, "text": "The wing stalls."}\n')
    index.sync(root)
    put(root, "a.jsonl.gz", gzip.compress(plain.read_bytes()))
    plain.unlink()
    put(root, "b.md.gz", gzip.compress(b"# Heat\n\nIt flows."))
    put(root, "c.bin.gz", gzip.compress(b"\0"))
    put(root, "d.csv.gz", b"text\nx\n")
    summary = index.sync(root)
    assert told(summary) == {"indexed": ["b.md.gz"], "moved": [("a.jsonl", "a.jsonl.gz")], "unchanged": 0}
    assert summary.left_out == {"binary": 1}
    assert [Path(path).name for path, _ in summary.failed] == ["d.csv.gz"]
    found = {Path(hit.path).name: (hit.text, hit.metadata) for hits, _ in index.everything() for hit in hits}
    assert found == {"a.jsonl.gz": ("The wing stalls.", {"id": 7}), "b.md.gz": ("# Heat\n\nIt flows.", {})}
    assert told(index.sync(root)) == {"unchanged": 2}


def test_what_fails_is_named_and_what_it_was_is_forgotten(root: Path, index: Index) -> None:
    put(root, "a.md", "The wing stalls.")
    put(root, "b.md", b"na\xefve")
    put(root, "c.bin", b"\0\1\2")
    put(root, "d.csv", "title\nx\n")
    summary = index.sync(root)
    assert told(summary) == {"indexed": ["a.md"], "unchanged": 0}
    assert [(Path(path).name, reason.split(": ")[0].split("/")[-1]) for path, reason in summary.failed] == [
        ("b.md", "b.md:1 is not UTF-8"),
        ("d.csv", "d.csv has no column 'text'; it has title."),
    ]
    assert summary.left_out == {"binary": 1}
    put(root, "a.md", b"\0")
    assert told(index.sync(root)) == {"removed": ["a.md"], "unchanged": 0}
    assert len(index) == 0


def test_what_cannot_be_opened_is_kept(root: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "a.md", "The wing stalls.")
    put(root, "closed/b.md", "Lentil soup.")
    put(root, "closed/deep/c.md", "A violin.")
    index.sync(root)
    scandir, read = os.scandir, sources.read

    def refusing(path: Path) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    def failing(file: sources.Found) -> Any:
        if file.path.endswith("a.md"):
            raise OSError(5, "Input/output error", file.path)
        return read(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refusing)
        patch.setattr(sources, "read", failing)
        put(root, "a.md", "Another text.")
        summary = index.sync(root)
    assert told(summary) == {"unchanged": 0}
    assert [reason for _, reason in summary.failed] == ["Permission denied", "Input/output error"]
    assert len(index) == 3
    assert told(index.sync(root)) == {"changed": ["a.md"], "unchanged": 2}


def test_a_missing_reader_keeps_what_was_there(root: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("docx", reason="python-docx, extra documents")
    from tests.mlx_embed.index.test_documents import docx_file

    put(root, "a.docx", docx_file())
    index.sync(root)
    before = len(index)
    put(root, "a.docx", docx_file() + b"\0")
    monkeypatch.setitem(__import__("sys").modules, "docx", None)
    summary = index.sync(root)
    assert ".[documents]" in summary.failed[0][1]
    assert len(index) == before > 0


def test_other_sources_are_left_alone(root: Path, index: Index, tmp_path: Path) -> None:
    other = tmp_path / "root-2"
    put(root, "a.md", "The wing stalls.")
    put(other, "a.md", "Lentil soup.")
    index.sync([root, other])
    (root / "a.md").unlink()
    (other / "a.md").unlink()
    assert told(index.sync(root)) == {"removed": ["a.md"], "unchanged": 0}
    assert len(index) == 1
    with pytest.raises(ValueError, match="There is no folder or file"):
        index.sync(tmp_path / "missing")
    assert len(index) == 1


def test_files_that_match_no_more_are_removed(root: Path, index: Index) -> None:
    put(root, "a.md", "The wing stalls.")
    put(root, "b.txt", "Lentil soup.")
    index.sync(root)
    assert told(index.sync(root, globs=["*.md"])) == {"removed": ["b.txt"], "unchanged": 1}


def test_an_index_inside_of_its_source_is_passed_over(root: Path, tiny_bert: EmbeddingModel) -> None:
    put(root, "a.md", "The wing stalls.")
    Index.create(root / "another", tiny_bert).close()
    with Index.create(root / "index", tiny_bert) as index:
        assert told(index.sync(root)) == {"indexed": ["a.md"], "unchanged": 0}
        assert told(index.sync(root)) == {"unchanged": 1}


def test_an_interrupted_run_goes_on(root: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        put(root, f"{n}.md", f"Text {n}.")
    monkeypatch.setattr("mlx_embed.index.commits.COMMITTED", 1)
    read = sources.read

    def interrupted(file: sources.Found) -> Any:
        if file.path.endswith("3.md"):
            raise KeyboardInterrupt
        return read(file)

    monkeypatch.setattr("mlx_embed.index.sync._FILES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(sources, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index.sync(root)
    done = len(index.files())
    assert 0 < done < 4
    assert told(index.sync(root))["unchanged"] == done
    assert len(index.files()) == 5


def test_a_file_removed_between_two_looks_is_removed(root: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(root, "a.md", "The wing stalls.")
    index.sync(root)
    put(root, "a.md", "Another.")
    read = sources.read

    def gone(file: sources.Found) -> Any:
        path.unlink()
        return read(file)

    monkeypatch.setattr(sources, "read", gone)
    assert told(index.sync(root)) == {"removed": ["a.md"], "unchanged": 0}


def test_chunks_of_another_version_are_refused(root: Path, tmp_path: Path, tiny_bert: EmbeddingModel) -> None:
    put(root, "a.md", "The wing stalls.")
    index = Index.create(tmp_path / "old", tiny_bert, chunker="something else")
    with pytest.raises(StoreMismatchError, match="something else"):
        index.sync(root)


def test_unchanged_files_take_no_time(root: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds are far more than a look at a thousand files needs."""
    for n in range(1000):
        put(root, f"{n % 10}/{n}.md", "The wing stalls.")
    monkeypatch.setattr(sources, "_TICK", -(10**18))
    index.sync(root)
    monkeypatch.setattr(sources, "read", None)
    start = time.perf_counter()
    assert told(index.sync(root)) == {"unchanged": 1000}
    assert time.perf_counter() - start < 2
