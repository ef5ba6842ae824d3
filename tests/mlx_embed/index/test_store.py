"""One writer, many readers: locks, snapshots, other processes, and compaction under a reader's eyes."""

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.errors import StoreError, StoreLockedError
from mlx_embed.index import Chunk, Index, rows
from mlx_embed.index.segments import SEGMENT_ROWS
from tests.conftest import ROOT
from tests.mlx_embed.index.conftest import ROW_DTYPES, fill, names, texts, vectors


def in_a_child(act: Callable[[], object]) -> str:
    """What a forked child returns, or how it fails."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = repr(act())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writes, said.encode()[:60_000])
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def run(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Another Python."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_thread_that_tidies_up_leaves_what_another_is_writing(index: Index) -> None:
    entries = [rows.entry("a", Chunk("wing", "", 0, 0, 0, 0))]
    with index._store.writing() as transaction:
        transaction.put(entries, vectors(1))  # into a file that nothing names yet
        compacting = threading.Thread(target=index._store.tidy)  # the last but one step of compacting
        compacting.start()
        compacting.join(0.2)
    compacting.join()
    index.check()
    assert [hit.id for hit in index.search("wing")] == ["a"]


def test_a_forked_child_that_lives_on_does_not_keep_the_lock(model: EmbeddingModel, tmp_path: Path) -> None:
    reads, writes = os.pipe()
    with Index.create(tmp_path / "index", model) as index:
        index.add(["a"], ["wing"])
        if (child := os.fork()) == 0:
            os.close(writes)
            os.read(reads, 1)
            os._exit(0)
    try:
        with Index.open(tmp_path / "index", model) as index:
            index.add(["b"], ["wing"])
    finally:
        os.write(writes, b"x")
        os.waitpid(child, 0)
        os.close(reads), os.close(writes)


def test_an_index_that_nobody_closed_gives_back_its_lock(model: EmbeddingModel, tmp_path: Path) -> None:
    Index.create(tmp_path / "index", model).add(["a"], ["wing"])
    gc.collect()
    with Index.open(tmp_path / "index", model) as index:
        index.add(["b"], ["wing"])
        said = in_a_child(lambda: Index.open(tmp_path / "index").delete(["a"]))
    assert re.match(rf"StoreLockedError: Process {os.getpid()} on .* is writing", said)


def test_the_lock_is_held_until_the_process_has_ended(model: EmbeddingModel, tmp_path: Path) -> None:
    """Not only until it begins to: a thread may write until then."""
    script = """
import atexit, fcntl, sys
def late():
    try:
        fcntl.flock(open(sys.argv[1] + "/lock"), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("held")
atexit.register(late)
from mlx_embed.index import Index
index = Index.open(sys.argv[1])
index.delete(["a"])
"""
    Index.create(tmp_path / "index", model).close()
    assert run(script, tmp_path / "index").communicate() == ("held\n", "")


def test_a_forked_child_that_closes_an_index_closes_its_own(index: Index) -> None:
    index.add(["a"], ["wing"])
    assert in_a_child(index.close) == "None"
    assert not (index.path / "index.seal").exists()  # it is still open to be written
    with Index.open(index.path, index.model) as other, pytest.raises(StoreLockedError):
        other.add(["b"], ["wing"])
    index.add(["b"], ["wing"])
    index.check()


def test_a_child_that_is_forked_while_another_thread_writes_does_not_wait_for_it(index: Index) -> None:
    index.add(["a"], ["wing"])
    begun, forked = threading.Event(), threading.Event()

    def write() -> None:
        with index._store._writing:
            begun.set()
            forked.wait(20)

    def close() -> None:
        signal.alarm(5)  # which ends a child that waits
        index.close()

    writing = threading.Thread(target=write)
    writing.start()
    begun.wait(10)
    said = in_a_child(close)
    forked.set()
    writing.join()
    assert said == "None"


def test_threads_that_add_one_id(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    both, encode = threading.Barrier(2), index.model.encode_document

    def together(*given: Any, **options: Any) -> Any:
        both.wait(10)
        return encode(*given, **options)

    monkeypatch.setattr(index.model, "encode_document", together)
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(index.add, ["a"], [text]) for text in ("wing one", "wing two")]
    refused = [call.exception() for call in calls if call.exception() is not None]
    assert [str(error) for error in refused] == [
        "The id 'a' is in the index already; use upsert to put a new text there."
    ]
    monkeypatch.undo()
    assert index.get()["a"].text == ("wing two" if calls[0].exception() else "wing one")


def test_one_writer_who_is_named(model: EmbeddingModel, tmp_path: Path) -> None:
    with Index.create(tmp_path / "index", model) as first, Index.open(tmp_path / "index", model) as second:
        first.add(["a"], ["wing"])
        for write in (
            lambda: second.add(["b"], ["wing"]),
            lambda: second.delete(["a"]),
            lambda: second.remove_files(["x"]),
            second.compact,
        ):
            with pytest.raises(StoreLockedError, match="This process is writing to the index"):
                write()
        assert [hit.id for hit in second.search("wing")] == ["a"]
        first.close()
        second.add(["b"], ["wing"])
        assert len(second) == 2


def test_a_reader_sees_each_commit_and_never_half_of_one(model: EmbeddingModel, tmp_path: Path) -> None:
    with Index.create(tmp_path / "index", model) as writer, Index.open(tmp_path / "index", model) as reader:
        seen: list[tuple[int, int, int]] = []
        ended = threading.Event()
        failures: list[BaseException] = []

        def read() -> None:
            try:
                while not ended.is_set():
                    with reader._store.reading() as (connection, view):
                        (rows,) = connection.execute("SELECT count(*) FROM chunk").fetchone()
                        seen.append((len(view), rows, view.generation))
                    hits = reader.search("wing", 500, mode="text")
                    assert len({hit.metadata["batch"] for hit in hits}) <= 1, "texts of two commits"
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for batch in range(25):
            found = texts(100, 1)
            writer.upsert(names(100), found, [{"batch": batch}] * 100, vectors=vectors(100, batch))
            if batch % 6 == 5:
                writer.compact()
        ended.set()
        for thread in threads:
            thread.join()
        assert not failures, failures
        assert all(view == rows for view, rows, _ in seen)
        assert {rows for _, rows, _ in seen} <= {0, 100}
        assert [generation for _, _, generation in seen[-1:]] <= [31]
        reader.check()


def test_a_commit_waits_for_the_disk(index: Index) -> None:
    """What loses it otherwise is a machine that stops, which no test can have happen."""
    with index._store.writing() as transaction:
        assert transaction.connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_search_that_has_begun_goes_on_over_a_compaction(model: EmbeddingModel, tmp_path: Path) -> None:
    with Index.create(tmp_path / "index", model) as writer, Index.open(tmp_path / "index", model) as reader:
        fill(writer, 600)
        with reader._store.reading() as (connection, view):
            writer.delete(names(300))
            in_a_child(lambda: None)
            assert len(view) == 600
            assert connection.execute("SELECT count(*) FROM chunk").fetchone() == (600,)
            vectors_before = view.vectors(np.arange(1, 601))
        np.testing.assert_array_equal(vectors_before[300:], vectors(600)[300:])
        assert len(reader) == 300
        old = {path.name for path in (tmp_path / "index" / "segments").iterdir()}
        mapped = reader._store._view
        writer.compact()
        assert not old & {path.name for path in (tmp_path / "index" / "segments").iterdir()}
        assert mapped is not None
        np.testing.assert_array_equal(mapped.vectors(np.arange(301, 601)), vectors(600)[300:])
        assert len(reader) == 300
        reader.check()


@pytest.mark.parametrize("row_dtype", ROW_DTYPES)
def test_compaction_changes_no_answer_and_gives_space_back(
    model: EmbeddingModel, tmp_path: Path, row_dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_embed.index.transaction.SEGMENT_ROWS", 512)
    folder = tmp_path / "index"
    with Index.create(folder, model, row_dtype=row_dtype) as index:  # type: ignore[arg-type]
        fill(index, 2000)
        gone = [name for i, name in enumerate(names(2000)) if i % 3 and i > 600]
        index.delete(gone)
        questions = ["the heat", "wing soup", "lentil plate"]
        before = [index.search(questions, 30, mode=mode) for mode in ("vector", "text", "hybrid")]
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        kept = folder / "segments" / "000001.float32"
        inode = kept.stat().st_ino
        index.compact()
        assert kept.stat().st_ino == inode, "a segment that has lost nothing stays"
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 0.7 * size
        assert [index.search(questions, 30, mode=mode) for mode in ("vector", "text", "hybrid")] == before
        index.check()
        index.compact()
        assert [index.search(questions, 30, mode=mode) for mode in ("vector", "text", "hybrid")] == before
        index.delete(names(2000)[530:540])  # of one in the middle, behind which others have lost nothing
        index.compact()
        index.check()
        assert [hit.id for hit in index.search(texts(2000)[1998], 1000, mode="text") if hit.id == "t01998"]
        index.add(["new"], ["a wing"])
        index.check()
        index.delete(names(2000))
        index.compact()
        index.check()
        assert [hit.id for hit in index.search("wing")] == ["new"]
        index.delete(["new"])
        index.compact()
        assert list((folder / "segments").iterdir()) == []
        index.add(["newer"], ["a wing"])
        index.check()
        assert [hit.id for hit in index.search("wing")] == ["newer"]


def test_what_is_left_of_a_compaction_that_was_killed_goes_with_the_next(index: Index) -> None:
    fill(index, 10)
    left = index.path / "segments" / "000009.float32"
    left.write_bytes(b"left over")
    index.check()
    index.compact()
    assert not left.exists()


MAKING = """
import sys
from mlx_embed import EmbeddingModel
from mlx_embed.index import Index
model = EmbeddingModel.from_pretrained("tests/data/tiny-bert", device="cpu")
print("ready", flush=True)
sys.stdin.readline() if len(sys.argv) > 2 else None
with Index.create(sys.argv[1], model, exist_ok=True) as index:
    print(len(index), len(index.search("wing")))
"""


def test_processes_that_make_a_cold_index_at_once(tmp_path: Path) -> None:
    children = [run(MAKING, tmp_path / "index") for _ in range(4)]
    for child in children:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        assert out.split() == ["ready", "0", "0"]


def test_threads_that_make_and_open_at_once(model: EmbeddingModel, tmp_path: Path) -> None:
    for attempt in range(5):
        assert at_once(model, tmp_path / str(attempt)) == []


def at_once(model: EmbeddingModel, folder: Path) -> list[BaseException]:
    """What goes wrong when four threads make an index."""
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def make() -> None:
        try:
            barrier.wait()
            with Index.create(folder, model, exist_ok=True) as index:
                assert index.search("wing") == []
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_a_forked_child_reads_and_does_not_write(index: Index) -> None:
    fill(index, 50)
    wanted = index.search("wing", 5, mode="text")
    assert in_a_child(lambda: index.search("wing", 5, mode="text")) == repr(wanted)
    assert "StoreError: This index was opened before" in in_a_child(lambda: index.delete(["t00001"]))
    assert "StoreLockedError" in in_a_child(lambda: Index.open(index.path).delete(["t00001"]))
    index.delete(["t00001"])
    assert len(index) == 49
    index.check()


def test_read_only_refuses_to_write(model: EmbeddingModel, tmp_path: Path) -> None:
    with Index.create(tmp_path / "index", model) as index:
        index.add(["a"], ["wing"])
    with Index.open(tmp_path / "index", model, read_only=True) as index:
        assert [hit.id for hit in index.search("wing")] == ["a"]
        for write in (lambda: index.add(["b"], ["x"]), lambda: index.delete(["a"]), index.compact):
            with pytest.raises(StoreError, match="read_only=True; open it without"):
                write()
        index.check()


def test_segments_are_filled_up_and_then_followed(model: EmbeddingModel, tmp_path: Path) -> None:
    count = SEGMENT_ROWS + 300
    rows = np.random.default_rng(0).standard_normal((count, 32)).astype(np.float32)
    with Index.create(tmp_path / "index", model) as index:
        with index._store.writing() as transaction:
            transaction.append(rows[:65_000])
        with index._store.writing() as transaction:
            transaction.append(rows[65_000:])
        with index._store.reading() as (_, view):
            assert [len(segment.numbers) for segment in view.segments] == [SEGMENT_ROWS, 300]
            np.testing.assert_array_equal(view.vectors(np.arange(1, count + 1)), rows)
            assert len(view) == count


def test_an_index_that_took_the_place_of_one_is_left_alone(model: EmbeddingModel, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    old, unread = Index.create(folder, model), Index.open(folder, model)
    old.add(["a"], ["the wing"])
    reader = Index.open(folder, model)
    assert len(reader) == 1
    shutil.rmtree(folder)
    with Index.create(folder, model) as new:
        new.add(["x", "y", "z"], ["heat", "flow", "layer"])
    calls: list[Callable[[Index], Any]] = [
        len,
        lambda index: index.search("wing"),
        lambda index: index.upsert(["a"], ["the wing of heat"]),
        lambda index: index.delete(["a"]),
        lambda index: index.compact(),
        lambda index: index.check(),
    ]
    for index in (old, unread, reader):
        for call in calls:
            with pytest.raises(StoreError, match="is there no more: it was moved, removed or replaced"):
                call(index)
    with Index.open(folder, model) as new:  # which the others do not keep from it
        new.delete(["z"])
        for index in (old, unread, reader):
            index.close()
        assert [hit.id for hit in new.search("heat", 1, mode="vector")] == ["x"]
    with Index.open(folder, model, read_only=True) as new:
        new.check()
        assert set(new.get()) == {"x", "y"}


def test_an_index_that_was_moved_says_so(model: EmbeddingModel, tmp_path: Path) -> None:
    with Index.create(tmp_path / "index", model) as index:
        index.add(["a"], ["the wing"])
        (tmp_path / "index").rename(tmp_path / "moved")
        with pytest.raises(StoreError, match="is there no more"):
            index.search("wing")
        with pytest.raises(StoreError, match="is there no more"):
            index.add(["b"], ["the wing"])
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]
    with Index.open(tmp_path / "moved", model) as index:
        index.check()
        assert set(index.get()) == {"a"}
