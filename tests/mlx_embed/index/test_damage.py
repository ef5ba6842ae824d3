"""Bad bytes, killed writers, full disks, media that cannot be written: an error that says so, or the right answer."""

import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.errors import StoreCorruptError, StoreError
from mlx_embed.index import Chunk, FileStat, Hit, Index, blocks
from tests.conftest import ROOT
from tests.mlx_embed.index.conftest import ROW_DTYPES, fill, names, texts, vectors
from tests.mlx_embed.index.test_store import in_a_child

QUESTIONS = ["the heat of a cone", "wing soup", "lentil"]


def answers(folder: Path, model: EmbeddingModel) -> list[list[list[Hit]]]:
    with Index.open(folder, model, read_only=True) as index:
        found = [index.search(QUESTIONS, 20, mode=mode) for mode in ("vector", "text", "hybrid")]
        found.append(index.search(QUESTIONS, 20, filter={"year": {">": 2005}, "lang": "de"}))
        assert index.files()
        return found


@pytest.fixture(params=ROW_DTYPES)
def folder(request: pytest.FixtureRequest, model: EmbeddingModel, tmp_path: Path) -> Path:
    with Index.create(tmp_path / "index", model, row_dtype=request.param) as index:
        fill(index, 700)
        index.replace_files([("a.md", FileStat(1, 2, "ab"), [Chunk("wing of a file", "a.md", 0, 1, 1, 1)])])
        index.delete(names(20))
    return tmp_path / "index"


def written(folder: Path, model: EmbeddingModel) -> None:
    """Open, search and change an index."""
    with Index.open(folder, model) as index:
        index.search(QUESTIONS, 3)
        index.add(["new"], ["a wing"])


MISSING, NO_NUMBER = "DELETE FROM meta WHERE key = ?", "UPDATE meta SET value = 'x1' WHERE key = ?"


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("files", MISSING),
        *((key, change) for key in ("generation", "numbers", "segments") for change in (MISSING, NO_NUMBER)),
    ],
)
def test_what_an_index_says_of_itself(key: str, change: str, model: EmbeddingModel, tmp_path: Path) -> None:
    """A database that is sound for SQLite, in which a row is missing or is no number."""
    folder = tmp_path / "index"
    with Index.create(folder, model) as index:
        fill(index, 20)
    (folder / "index.seal").unlink()
    with closing(sqlite3.connect(folder / "index.sqlite")) as connection, connection:
        connection.execute(change, (key,))
    message = rf"index\.sqlite is damaged \(.*its {key}.*Restore it from a copy"
    with pytest.raises(StoreCorruptError, match=message):
        written(folder, model)


def test_bad_bytes_in_any_file_are_an_error_that_names_it_or_change_nothing(
    folder: Path, model: EmbeddingModel, tmp_path: Path
) -> None:
    wanted = answers(folder, model)
    dice = random.Random(str(folder))
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size and path.name != "lock"]
    # What SQLite makes of its log when a database is opened: bad bytes in it are written over.
    shared = folder / "index.sqlite-shm"
    for number in range(60):
        path = files[number % len(files)]
        sound = path.read_bytes()
        broken = bytearray(sound)
        for _ in range(dice.choice([1, 1, 100])):
            broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
        path.write_bytes(broken)
        try:
            assert answers(folder, model) == wanted, f"a wrong answer from {path.name}"
        except StoreError as error:
            said = str(error)
        else:
            said = "" if path != shared else str(path)
        assert str(path) in said, said or f"bad bytes in {path.name} were not seen"
        path.write_bytes(sound)
    assert answers(folder, model) == wanted


def test_files_that_are_cut_or_gone_are_named(folder: Path, model: EmbeddingModel) -> None:
    wanted = answers(folder, model)
    for path in sorted((folder / "segments").iterdir()):
        sound = path.read_bytes()
        path.write_bytes(sound[: len(sound) // 2])
        with pytest.raises(StoreCorruptError, match=f"{path.name} has .* bytes, where the index says at least"):
            answers(folder, model)
        path.unlink()
        with pytest.raises(StoreError, match=f"{path.name} is missing"):
            answers(folder, model)
        path.write_bytes(sound + b"what a killed writer had begun")
        assert answers(folder, model) == wanted
    database = folder / "index.sqlite"
    sound = database.read_bytes()
    for broken in (sound[:5000], b"", b"this is no database" * 1000):
        database.write_bytes(broken)
        with pytest.raises(StoreError, match=r"index\.sqlite"):
            answers(folder, model)
    database.unlink()
    with pytest.raises(StoreError, match="There is no index"):
        answers(folder, model)


def test_check_finds_what_no_search_has_met(folder: Path, model: EmbeddingModel) -> None:
    path = folder / "segments" / "000001.float32"
    broken = bytearray(path.read_bytes())
    broken[-3] ^= 4
    path.write_bytes(broken)
    with (
        Index.open(folder, model) as index,
        pytest.raises(StoreCorruptError, match=r"01\.float32 is damaged: rows"),
    ):
        index.check()
    with (
        Index.open(folder, model) as index,
        pytest.raises(StoreCorruptError, match=r"01\.float32 is damaged: rows"),
    ):
        list(index.everything())


@pytest.mark.parametrize("table", ["words_data", "attribute", "chunk", "file", "block"])
def test_check_finds_a_database_whose_parts_do_not_fit(folder: Path, model: EmbeddingModel, table: str) -> None:
    import sqlite3

    connection = sqlite3.connect(folder / "index.sqlite")
    where = {"words_data": "id > 10", "block": "number = 0"}.get(table, "1")
    rows = f"SELECT * FROM {table} WHERE {where} LIMIT 1"
    assert connection.execute(rows).fetchone()
    key = {"words_data": "id", "block": "number", "attribute": "value", "file": "path", "chunk": "number"}[table]
    chosen = connection.execute(f"SELECT {key} FROM {table} WHERE {where} LIMIT 1").fetchone()
    change = "sha256 = 'x'" if table == "file" else ""
    if change:
        connection.execute(f"UPDATE {table} SET {change} WHERE {key} = ?", chosen)
    else:
        connection.execute(f"DELETE FROM {table} WHERE {key} = ?", chosen)
    connection.commit()
    connection.close()
    (folder / "index.seal").unlink()
    with Index.open(folder, model) as index, pytest.raises(StoreCorruptError, match=r"index\.sqlite is damaged"):
        index.check()


@pytest.mark.parametrize("lost", ["vector", "words"])
def test_check_finds_a_text_without_its(lost: str, index: Index) -> None:
    """SQLite and every checksum find nothing wrong in this database."""
    fill(index, 20)
    with index._store.reading() as (_, view):
        block = view.block(view.segments[0], 0)
    index.close()
    block.dead[7] = True
    with closing(sqlite3.connect(index.path / "index.sqlite")) as connection, connection:
        if lost == "vector":
            connection.execute(blocks.INSERT, block.record())
        else:
            connection.execute("INSERT INTO words(words, rowid, text) SELECT 'delete', number, text FROM chunk LIMIT 1")
    (index.path / "index.seal").unlink()
    with (
        Index.open(index.path, index.model) as again,
        pytest.raises(StoreCorruptError, match=r"index\.sqlite is damaged"),
    ):
        again.check()


def test_a_text_without_a_vector_has_not_the_next_ones(index: Index) -> None:
    fill(index, 20)
    index.delete(names(20)[5:6])
    index.compact()
    with index._store.reading() as (_, view):
        there = view.segments[0].numbers
        [gone] = set(range(there[0], there[-1])) - set(there.tolist())
        with pytest.raises(StoreCorruptError, match="texts that have no vector"):
            view.vectors(np.array([gone]))


def test_a_block_that_is_not_as_it_was_written() -> None:
    written = blocks.Block(3, 1, [5, 6], np.arange(4), error=0.5).record()
    assert blocks.read(written, 2, "") == written[:-1]
    for place, value in enumerate(written):
        other = value + 1 if isinstance(value, int) else bytes([value[0] ^ 1]) + value[1:]
        with pytest.raises(StoreCorruptError, match="is damaged: block"):
            blocks.read((*written[:place], other, *written[place + 1 :]), 2, "")


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own."""
    folder.mkdir()
    size = f"size={megabytes}m"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(folder)], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def until_it_fails(index: Index, name: str = "a") -> tuple[int, str]:
    """Add texts until there is an error: how many were acknowledged, and the error."""
    count = len(index)
    for step in range(1000):
        ids = [f"{name}{step}-{i}" for i in range(100)]
        try:
            index.add(ids, texts(100, step), vectors=vectors(100, step))
        except StoreError as error:
            return count, str(error)
        count += 100
    raise AssertionError("it did not fail")


def test_a_full_disk_loses_nothing(model: EmbeddingModel, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 2):
        with Index.create(disk / "index", model, row_dtype="int8") as index:
            count, said = until_it_fails(index)
            assert "No space is left" in said or "may be full" in said, said
            assert count > 200
            assert len(index) == count
            again, _ = until_it_fails(index, "b")
            assert again == count == len(index.search("wing", 10_000, mode="vector"))
            index.check()
        with Index.open(disk / "index", model, read_only=True) as index:
            assert len(index) == count
            index.check()
        shutil.copytree(disk / "index", tmp_path / "copied")
    with Index.open(tmp_path / "copied", model) as index:
        index.check()
        index.add(["more"], ["wing"])
        assert len(index) == count + 1


def test_a_limit_on_the_size_of_files_loses_nothing(model: EmbeddingModel, tmp_path: Path) -> None:
    with Index.create(tmp_path / "index", model) as index:
        fill(index, 100)

    def limited() -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with Index.open(tmp_path / "index", model) as index:
            count, said = until_it_fails(index)
            return count, said, len(index)

    count, said, held = eval(in_a_child(limited))
    assert count == held > 100
    assert "committed is there" in said
    with Index.open(tmp_path / "index", model) as index:
        assert len(index) == count
        index.check()


def test_media_that_cannot_be_written_are_read(model: EmbeddingModel, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 8):
        with Index.create(disk / "index", model) as index:
            fill(index, 300)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for read_only in (True, False):
            with Index.open(disk / "index", model, read_only=read_only) as index:
                assert len(index.search("wing", 1000, mode="vector")) == 300
                assert index.search("wing", mode="text")
                with pytest.raises(StoreError, match="read_only=True"):
                    index.add(["x"], ["y"])
        with pytest.raises(StoreError, match="cannot be written here"):
            Index.create(disk / "other", model)


def test_killed_writers_lose_nothing() -> None:
    """A short run of the script that was run for long."""
    script = ROOT / "scripts" / "crash_index.py"
    command = [sys.executable, str(script), "--kills", "6", "--steps", "25"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Nothing was lost" in run.stdout
