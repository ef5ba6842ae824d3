"""What convert may replace, and that nothing is lost whenever it is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mlx_embed import CheckpointError, EmbeddingModel, convert, destination
from mlx_embed.destination import RECORD
from tests.checkpoints import edit
from tests.conftest import DATA, ROOT

TEXTS = ["the wing", "boundary layer " * 9]


def contents(folder: Path) -> Mapping[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def encode(folder: Path) -> np.ndarray:
    return EmbeddingModel.from_pretrained(folder, device="cpu").encode(TEXTS)


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    convert(DATA / "tiny-mpnet", tmp_path / "a")
    return tmp_path / "a"


@pytest.fixture(params=[True, False], ids=["exchange", "renames"])
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the system's exchange of two folders, where it has one, and without."""
    if not request.param:
        monkeypatch.setattr(destination, "_exchange", lambda one, other: False)
    return bool(request.param)


def test_overwrite(exchange: bool, converted: Path) -> None:
    convert(DATA / "tiny-bert", converted, overwrite=True)
    assert set(contents(converted)) == set(contents(DATA / "tiny-bert")) | {RECORD}
    assert np.array_equal(encode(converted), encode(DATA / "tiny-bert"))
    assert [path.name for path in converted.parent.iterdir()] == ["a"]


def test_two_folders_change_places(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).write_text("")
    if not destination._exchange(one, other):
        pytest.skip("this system or file system cannot")
    assert [path.name for path in one.iterdir()] == ["other"]
    assert [path.name for path in other.iterdir()] == ["one"]
    assert not destination._exchange(one, tmp_path / "absent")


def test_not_without_overwrite(converted: Path) -> None:
    before = contents(converted)
    with pytest.raises(FileExistsError, match="is not empty; pass overwrite"):
        convert(DATA / "tiny-bert", converted)
    assert contents(converted) == before


@pytest.mark.parametrize("file", ["thesis.txt", "runs/1/a.json", ".git/config", "1_Pooling/a.md", "z.safetensors"])
def test_what_convert_has_not_written_stays(file: str, converted: Path) -> None:
    (converted / file).parent.mkdir(parents=True, exist_ok=True)
    (converted / file).write_text("mine")
    before = contents(converted.parent)
    with pytest.raises(FileExistsError, match="which convert has not written; it will not be replaced") as error:
        convert(DATA / "tiny-bert", converted, overwrite=True)
    assert any(str(place) in str(error.value) for place in (Path(file), *Path(file).parents) if place != Path("."))
    assert contents(converted.parent) == before


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"files": 3}', '{"files": [3]}', "\0"])
def test_a_folder_without_a_record_stays(text: str | None, converted: Path) -> None:
    """A checkpoint from elsewhere, or a home folder that holds a config.json."""
    (converted / RECORD).unlink()
    if text is not None:
        (converted / RECORD).write_text(text)
    before = contents(converted)
    with pytest.raises(FileExistsError, match=r"has no mlx_embed\.json|which convert has not written"):
        convert(DATA / "tiny-bert", converted, overwrite=True)
    assert contents(converted) == before


@pytest.mark.parametrize("what", ["a file", "a link"])
def test_no_folder(what: str, converted: Path, tmp_path: Path) -> None:
    taken = tmp_path / "b"
    taken.write_text("mine") if what == "a file" else taken.symlink_to(converted)
    before = contents(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="is not a folder"):
            convert(DATA / "tiny-bert", taken, overwrite=overwrite)
    assert contents(tmp_path) == before


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not named in UTF-8; choose another name"):
        convert(DATA / "tiny-bert", os.fsdecode(os.fsencode(tmp_path) + b"/m\xff"))
    assert not list(tmp_path.iterdir())


def test_a_failed_replacement_puts_the_old_one_back(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(converted.parent)
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if ".partial-" in str(source):
            raise OSError("Device or resource busy")
        rename(source, target)

    monkeypatch.setattr(destination, "_exchange", lambda one, other: False)
    monkeypatch.setattr("os.rename", failing)
    with pytest.raises(CheckpointError, match="a could not be replaced: Device or resource busy"):
        convert(DATA / "tiny-bert", converted, overwrite=True)
    assert contents(converted.parent) == before


KILLED = """
import os, signal, sys
from mlx_embed import convert, destination
if {renames}:
    destination._exchange = lambda one, other: False
rename, count = os.rename, 0
def counting(*places):
    global count
    rename(*places)
    count += 1
    if count == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
os.rename = counting
{also}
convert({source!r}, {target!r}, overwrite=True)
"""


def killed(target: Path, *, after: int, renames: bool, also: str = "") -> None:
    code = KILLED.format(renames=renames, after=after, also=also, source=str(DATA / "tiny-bert"), target=str(target))
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == -signal.SIGKILL, run.stderr


@pytest.mark.parametrize("after", [1, 2])
def test_killed_between_two_renames_it_is_put_back(after: int, converted: Path) -> None:
    before = contents(converted)
    killed(converted, after=after, renames=True)
    assert converted.exists() == (after == 2)
    with pytest.raises(FileExistsError, match="is not empty"):
        convert(DATA / "tiny-bert", converted)  # refused, but first it puts back what was there
    assert (contents(converted) == before) == (after == 1)
    assert [path.name for path in converted.parent.iterdir()] == ["a"], "and removes what is left of the other run"


def test_killed_while_writing_nothing_is_there(tmp_path: Path) -> None:
    also = (
        "from mlx_embed.checkpoint import weights\nsave = weights.save_encoder\n"
        "def dying(*arguments):\n    save(*arguments)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "weights.save_encoder = dying\n"
    )
    killed(tmp_path / "a", after=0, renames=False, also=also)
    assert not (tmp_path / "a").exists()
    assert len(list(tmp_path.iterdir())) == 1
    convert(DATA / "tiny-bert", tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_run_that_is_alive_keeps_its_folder(tmp_path: Path) -> None:
    with destination.workplace(tmp_path / "a") as work:
        destination.restore(tmp_path / "a")
        assert work.is_dir()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("renames", [False, True], ids=["exchange", "renames"])
def test_killed_at_any_moment(renames: bool, converted: Path) -> None:
    """Replaced without end by one of two checkpoints; whenever that ends, one of them is there, whole."""
    other = converted.parent / "other"
    convert(DATA / "tiny-bert", other)
    sides = [encode(converted), encode(other)]
    code = f"""
import itertools
from pathlib import Path
from mlx_embed import destination
if {renames}:
    destination._exchange = lambda one, other: False
import shutil
target = Path({str(converted)!r})
copies = [Path({str(DATA)!r}) / "tiny-mpnet", Path({str(DATA)!r}) / "tiny-bert"]
print("ready", flush=True)
for source in itertools.cycle(copies):
    destination.restore(target)
    destination.check_destination(target, True)
    with destination.workplace(target) as work:
        shutil.copytree(source, work / "checkpoint")
        destination.record(work / "checkpoint")
        destination.put(work / "checkpoint", target)
"""
    rng = random.Random(0)
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.random() * 0.1)
        process.kill()
        process.communicate()
        if not renames:
            assert converted.exists()
        destination.restore(converted)
        found = encode(converted)
        assert any(np.array_equal(found, side) for side in sides)
        assert sorted(path.name for path in converted.parent.iterdir()) == ["a", "other"]


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_a_running_process_keeps_its_vectors(engine: str, converted: Path) -> None:
    """Its weights are read when a model is loaded: nothing of it is read from the files after that."""
    code = f"""
import sys
from mlx_embed import EmbeddingModel
model = EmbeddingModel.from_pretrained({str(converted)!r}, device="cpu", engine={engine!r})
for text in sys.stdin:
    print(model.encode(text).tobytes().hex(), flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    expected = EmbeddingModel.from_pretrained(converted, device="cpu", engine=engine).encode("the wing\n")
    found = []
    for _ in range(2):
        process.stdin.write("the wing\n")
        process.stdin.flush()
        found.append(bytes.fromhex(process.stdout.readline()))
        convert(DATA / "tiny-bert", converted, overwrite=True)
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    assert found[0] == found[1] == expected.tobytes()
    assert not np.array_equal(encode(converted)[0], expected)


def test_the_record_lists_what_is_there(converted: Path) -> None:
    listed = json.loads((converted / RECORD).read_text())["files"]
    assert listed == sorted(contents(converted))
    edit(converted, layer_norm_eps=1e-6)  # what convert has written may be edited, and is replaced all the same
    convert(DATA / "tiny-bert", converted, overwrite=True)
