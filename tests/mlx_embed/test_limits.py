"""What a machine may lack: room on the disk, memory, a home, standard streams, somebody who reads the output."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CheckpointError, CrossEncoder, EmbeddingModel, convert
from mlx_embed.checkpoint import read_checkpoint, safetensors
from mlx_embed.checkpoint.weights import load_encoder
from mlx_embed.engine import memory
from tests.checkpoints import encoder
from tests.conftest import DATA, ROOT

MIB = 2**20


def command(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run `mlx-embed`."""
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    # As for most users, whose streams are buffered.
    given["env"] = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-m", "mlx_embed.cli", *arguments], cwd=ROOT, text=True, check=False, timeout=120, **given
    )


def one_sentence(run: "subprocess.CompletedProcess[str]") -> str:
    """What a failed command says: on stderr alone, in one line, with status 2."""
    assert run.returncode == 2
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    return line.removeprefix("mlx-embed: ")


def test_errors_are_on_stderr(tmp_path: Path) -> None:
    assert one_sentence(command("convert", str(tmp_path / "absent"), str(tmp_path / "a"))).startswith(
        "There is no folder"
    )


def test_files_that_may_not_become_so_large(tmp_path: Path) -> None:
    run = command(
        "convert",
        str(DATA / "tiny-bert"),
        str(tmp_path / "a"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert re.fullmatch(r".*a could not be written \(.*\): the disk is full, .* \(ulimit -f\).*", one_sentence(run))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_while_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match=r"a could not be written \(No space left on device\): the disk is full"):
        convert(DATA / "tiny-bert", tmp_path / "a")
    assert not list(tmp_path.iterdir())


CLOSED = ([0], [1], [2], [0, 1], [0, 1, 2])


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_closed_standard_streams(closed: Iterable[int], tmp_path: Path) -> None:
    """A file would be opened in a stream's place: MLX takes 0 for a failure, and prints go into 1 and 2."""

    def close() -> None:
        for stream in closed:
            os.close(stream)

    run = command("convert", str(DATA / "tiny-bert"), str(tmp_path / "a"), preexec_fn=close)
    assert run.returncode == 0
    assert (run.stdout == "") == (1 in closed)
    assert run.stderr == ""
    found, expected = (
        EmbeddingModel.from_pretrained(path, device="cpu") for path in (tmp_path / "a", DATA / "tiny-bert")
    )
    assert np.array_equal(found.encode("the wing"), expected.encode("the wing"))


def test_no_file_of_a_command_takes_a_streams_place(tmp_path: Path) -> None:
    """Else what a library prints would be in the middle of what is written."""
    code = f"""
import os
from mlx_embed import cli
for stream in range(3):
    os.close(stream)
cli.main(["env"])
found = os.open({str(tmp_path / "a")!r}, os.O_WRONLY | os.O_CREAT)
os.write(found, str(found).encode())
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
    assert int((tmp_path / "a").read_text()) > 2


def test_a_model_is_loaded_without_standard_input() -> None:
    code = (
        "import os, sys; os.close(0); from mlx_embed import EmbeddingModel\n"
        f"print(EmbeddingModel.from_pretrained({str(DATA / 'tiny-bert')!r}, device='cpu').encode('x').shape)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout, run.stderr) == (0, "(32,)\n", "")


@pytest.mark.parametrize(
    ("arguments", "stream", "status"),
    [
        (["env"], "stdout", 141),
        (["--help"], "stdout", 0),
        (["convert", "/absent", "/tmp/a"], "stderr", 2),
        (["nonsense"], "stderr", 2),
    ],
)
def test_a_reader_that_has_gone(arguments: list[str], stream: str, status: int) -> None:
    read, write = os.pipe()
    os.close(read)
    run = command(*arguments, **{stream: write})
    os.close(write)
    assert run.returncode == status
    assert not run.stdout
    assert not run.stderr


def test_no_home_and_no_entry_of_the_user() -> None:
    code = f"""
import os, pwd
for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME"):
    os.environ.pop(name, None)
def gone(*_):
    raise KeyError("uid not found")
pwd.getpwuid = gone
from mlx_embed import EmbeddingModel, cli
for engine in ("auto", "reference"):
    print(EmbeddingModel.from_pretrained({str(DATA / "tiny-bert")!r}, device="cpu", engine=engine).encode("x").shape)
print([cli.main(arguments) for arguments in (["env"], ["convert", "~/a", "b"], ["convert", "a/b/c", "~/b"])])
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[:2] == ["(32,)"] * 2
    assert lines[-1] == "[0, 2, 2]"
    assert len(run.stderr.splitlines()) == 2, run.stderr


def limited(monkeypatch: pytest.MonkeyPatch, **left: int) -> None:
    monkeypatch.setattr(memory, "_left", lambda: iter(left.items()))


@pytest.mark.parametrize("kind", [EmbeddingModel, CrossEncoder])
def test_too_little_memory_is_said_before_loading(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("it was read")

    limited(monkeypatch, group=50_000)
    monkeypatch.setattr(safetensors, "load", read)
    with pytest.raises(
        MemoryError, match=r"Loading .*tiny-bert needs about 0 MiB, and group leaves this process 0 MiB;"
    ):
        kind.from_pretrained(DATA / "tiny-bert", device="cpu")


@pytest.mark.parametrize(
    ("options", "numbers"),
    [({}, 2), ({"dtype": "float16"}, 1.5), ({"quantize": 8, "group_size": 32}, None)],
    ids=["float32", "float16", "8 bits"],
)
def test_what_is_needed(options: dict[str, Any], numbers: float | None, tmp_path: Path) -> None:
    """The file, and its numbers in float32."""
    convert(encoder("bert", tmp_path / "a"), tmp_path / "b", **options)
    plain = EmbeddingModel.from_pretrained(tmp_path / "a", device="cpu", engine="reference")
    size = (tmp_path / "b/model.safetensors").stat().st_size
    checkpoint = EmbeddingModel.from_pretrained(tmp_path / "b", device="cpu").checkpoint
    needed = memory._needed(checkpoint, mx.float32)
    whole = memory._needed(plain.checkpoint, mx.float32) / 2
    assert needed - size == pytest.approx(whole, rel=0.15)
    if numbers is not None:
        assert needed == pytest.approx(numbers * whole, rel=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and only Linux keeps to the limit")
def test_the_address_space_is_limited(tmp_path: Path) -> None:
    """In a process of its own; what is left must be counted without what is in use."""
    code = f"""
import resource
from mlx_embed import EmbeddingModel
from mlx_embed.engine import memory
folder = {str(DATA / "tiny-bert")!r}
EmbeddingModel.from_pretrained(folder, device="cpu").encode("the wing")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for more in (10, 1000):
    resource.setrlimit(resource.RLIMIT_AS, (used + more * 2**20, resource.RLIM_INFINITY))
    try:
        print(EmbeddingModel.from_pretrained(folder, device="cpu").encode("the wing").shape)
    except MemoryError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    refused, loaded = run.stdout.splitlines()
    assert re.fullmatch(r"Loading .* needs about 256 MiB, and RLIMIT_AS leaves this process \d+ MiB; raise .*", refused)
    assert loaded == "(32,)"


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this process's own group and of those above; what the cache holds can be had back."""
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    root = tmp_path / "cgroup" / ("memory" if version == 1 else "")
    (root / "outer/inner").mkdir(parents=True)
    for folder, limit in ((root / "outer", 900), (root / "outer/inner", "max" if version == 2 else 2**63 - 4096)):
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text("500\n")
        (folder / "memory.stat").write_text(f"anon 1\n{names[2]} 30\n")
    (tmp_path / "self").write_text(f"{'4:memory' if version == 1 else '0:'}:/outer/inner\n")

    def path(*parts: Any) -> Path:
        places = {"/proc/self/cgroup": tmp_path / "self", "/sys/fs/cgroup": tmp_path / "cgroup"}
        return places.get(str(Path(*parts)), Path(*parts))

    monkeypatch.setattr(memory, "Path", path)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    found = {name: left for name, left in memory._left() if left < 2**40}
    assert found == {str(root / "outer" / names[0]): 900 - 500 + 30}


def test_a_file_that_shrinks_while_it_is_read(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX reads the data when it is used, after the header was checked."""
    load: Callable[[Path], dict[str, mx.array]] = safetensors.load

    def shrinking(path: Path) -> dict[str, mx.array]:
        found = load(path)
        os.truncate(path, path.stat().st_size // 2)
        return found

    monkeypatch.setattr("mlx_embed.checkpoint.safetensors.load", shrinking)
    with pytest.raises(CheckpointError, match=r"model\.safetensors could not be read to the end"):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu", engine="reference")


def test_a_file_that_shrinks_while_it_is_mapped(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shrinking(*_: Any) -> dict[Any, Any]:
        os.truncate(checkpoint / "model.safetensors", 1000)
        return {}

    monkeypatch.setattr("mlx_embed.checkpoint.weights.map_float32", shrinking)
    with pytest.raises(CheckpointError, match=r"model\.safetensors could not be read to the end"):
        load_encoder(read_checkpoint(checkpoint), None, safetensors.map_files(checkpoint))


@pytest.mark.parametrize("length", [99_999_999, 10**8 + 1, 2**63])
def test_a_huge_header_in_a_sparse_file(length: int, checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little"))
    os.truncate(path, 2 * 10**8)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a sound safetensors file"):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")


def test_no_memory_for_a_header(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(safetensors.json, "loads", none)
    with pytest.raises(CheckpointError, match="there is no memory for it"):
        safetensors.read_headers(checkpoint)


def test_a_huge_json_file(checkpoint: Path) -> None:
    os.truncate(checkpoint / "config.json", 10**10)
    with pytest.raises(CheckpointError, match=r"config\.json has 10000000000 bytes, too many for JSON"):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")


def test_a_folder_that_is_not_named_in_utf8(checkpoint: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(checkpoint) + b"\xff"))
    checkpoint.rename(folder)
    with pytest.raises(CheckpointError, match="is not named in UTF-8"):
        EmbeddingModel.from_pretrained(folder, device="cpu")
