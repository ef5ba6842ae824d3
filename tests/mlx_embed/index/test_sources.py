"""Which files of a folder are taken: what git says, links, hidden and unreadable ones, and what changes meanwhile."""

import gzip
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_embed.index import sources
from mlx_embed.index.sources import BinaryError, Found, Walk
from tests.mlx_embed.index.conftest import at_most


def files(*roots: Path, globs: tuple[str, ...] = (), but: Callable[[Path], bool] = lambda path: False) -> list[str]:
    found = sources.walk(sources.roots(roots), globs, but, Walk())
    return [os.path.relpath(file.path, roots[0]) for file in found]


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    return root


RULES = ["*.log", "!keep.log", "build/", "/top.md", "docs/*.txt", "**/deep", "a/**/z.md", "x[0-2].md", "# no", ""]
RULES += ["sub/", "!sub/", r"\#odd", "*.md", "!a/*.md", "/a/b", "b ", "?.txt", "[[:alpha:]].md", "[!x]*.md", "**"]
RULES += ["!keep.*", "a/[bc]/", r"\n.txt", "[]z].md", "open[", "*/b"]
FOLDERS = ["", "a/", "a/b/", "docs/", "build/", "sub/deep/", "a/sub/"]
NAMES = ["keep.log", "other.log", "top.md", "x1.md", "x5.md", "z.md", "n.txt", "deep", "#odd", "b"]


@pytest.mark.parametrize("seed", range(25))
def test_gitignore_is_obeyed_as_by_git(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    for folder in FOLDERS:
        for name in chance.sample(NAMES, 5):
            if not (tmp_path / folder / name).exists() and not any((tmp_path / p).is_file() for p in (folder[:-1],)):
                tree(tmp_path, folder + name) if chance.random() < 0.9 else None
    for folder in ("", *chance.sample([f for f in FOLDERS if (tmp_path / f).is_dir()], 2)):
        (tmp_path / folder / ".gitignore").write_text("\n".join(chance.sample(RULES, 5)) + "\n")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".git" / "info" / "exclude").write_text("excluded.md\n" + chance.choice(RULES) + "\n")
    tree(tmp_path, "excluded.md")
    listed = subprocess.run(
        ["git", "-c", "core.quotepath=off", "ls-files", "-co", "--exclude-standard"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = {name.strip('"') for name in listed.stdout.splitlines() if not Path(name).name.startswith(".")}
    assert set(files(tmp_path)) == wanted
    below = {os.path.relpath(name, "a") for name in wanted if name.startswith("a/")}
    if (tmp_path / "a").is_dir() and below:
        assert set(files(tmp_path / "a")) == below


@pytest.mark.parametrize(
    "rule",
    [
        "?",
        "??",
        "???",
        "[\u00e9]",
        "[\u00e9][\u00e9]",
        "[!a][!a]",
        "[\u00e0-\u00fc]",
        "caf?.md",
        "caf??.md",
        "\u00e9*",
        "\ud800*",
    ]
    + [f"a[[:{name}:]]b" for name in ("space", "blank", "cntrl", "print", "graph", "alpha", "punct")],
)
def test_rules_are_of_bytes_as_for_git(rule: str, tmp_path: Path) -> None:
    names = [
        "\u00e9",
        "e",
        "\u00e9a",
        "\u65e5",
        "caf\u00e9.md",
        "a\x0bb",
        "a b",
        "a\tb",
        "a\u00a0b",
        "a\u0085b",
        "a-b",
        "axb",
    ]
    tree(tmp_path, *names)
    (tmp_path / ".gitignore").write_text(rule + "\n", errors="surrogatepass")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    said = subprocess.run(
        ["git", "check-ignore", "--stdin", "-z"], cwd=tmp_path, input="\0".join(names).encode(), capture_output=True
    )
    ignored = {name for name in said.stdout.decode().split("\0") if name}
    assert set(files(tmp_path)) == set(names) - ignored


@pytest.mark.parametrize("rule", ["*a" * 30 + "z", "**/" * 30 + "z", "**/*a*/" * 10 + "z", " " * 100_000 + "z"])
def test_rules_of_many_stars_take_no_time(rule: str, tmp_path: Path) -> None:
    name = "/".join(["a" * 40] * 12)
    tree(tmp_path, name, "z")
    (tmp_path / ".gitignore").write_text(f"{rule}\n/z\n")
    with at_most(seconds=20):
        assert files(tmp_path) == [name]


@pytest.mark.parametrize("rule", ["a ", "a   ", "a\\ ", "a\\   ", "a\\\\ ", "a\\\\\\  ", "\\", " ", "a \r"])
def test_spaces_at_the_end_of_rules_are_as_for_git(rule: str, tmp_path: Path) -> None:
    names = ["a", "a ", "a  ", "a\\", "a\\ ", " ", "\\"]
    tree(tmp_path, *names)
    (tmp_path / ".gitignore").write_bytes(f"{rule}\n".encode())
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    said = subprocess.run(
        ["git", "check-ignore", "--stdin", "-z"], cwd=tmp_path, input="\0".join(names).encode(), capture_output=True
    )
    assert set(files(tmp_path)) == set(names) - set(said.stdout.decode().split("\0"))


def test_a_folder_that_is_named_is_taken_though_git_leaves_it_out(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    tree(tmp_path, "build/a.md", "build/b.log")
    (tmp_path / ".gitignore").write_text("build/\n")
    (tmp_path / "build" / ".gitignore").write_text("*.log\n")
    assert files(tmp_path) == []
    assert files(tmp_path / "build") == ["a.md"]


def test_a_folder_takes_back_what_one_above_it_leaves_out(tmp_path: Path) -> None:
    tree(tmp_path, "sub/keep.log", "sub/other.log")
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "sub" / ".gitignore").write_text("!keep.log\n")
    assert files(tmp_path) == ["sub/keep.log"]


def test_hidden_files_links_and_pipes_are_left_out_and_counted(tmp_path: Path) -> None:
    outside = tree(tmp_path / "outside", "secret.md")
    root = tree(tmp_path / "root", "a.md", ".hidden.md", ".git/config", "d/b.md")
    (root / "link.md").symlink_to(outside / "secret.md")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe")
    seen = Walk()
    found = list(sources.walk(sources.roots([root]), [], lambda path: False, seen))
    assert [Path(file.path).name for file in found] == ["a.md", "b.md"]
    assert seen.left_out == {"hidden": 2, "link": 3, "special": 1}
    assert not seen.failed


def test_a_file_that_has_become_a_link_is_not_followed(tmp_path: Path) -> None:
    secret = tree(tmp_path, "secret.md") / "secret.md"
    root = tree(tmp_path / "root", "a.md")
    [found] = sources.walk([root], [], lambda path: False, Walk())
    (root / "a.md").unlink()
    (root / "a.md").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        sources.read(found)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    tree(tmp_path, "a.md", "closed/b.md")
    (tmp_path / "closed").chmod(0)
    seen = Walk()
    assert len(list(sources.walk([tmp_path], [], lambda path: False, seen))) == 1
    assert seen.unread == [str(tmp_path / "closed")]
    assert seen.failed == [(str(tmp_path / "closed"), "Permission denied")]
    (tmp_path / "closed").chmod(0o700)


def test_a_folder_that_cannot_be_listed_is_named_and_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a.md", "closed/b.md")
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    seen = Walk()
    assert len(list(sources.walk([tmp_path], [], lambda path: False, seen))) == 1
    assert seen.unread == [str(tmp_path / "closed")]
    assert seen.failed == [(str(tmp_path / "closed"), "Permission denied")]


def test_a_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.md"))).write_text("x")
    seen = Walk()
    assert list(sources.walk([tmp_path], [], lambda path: False, seen)) == []
    assert "not UTF-8" in seen.failed[0][1]


def test_globs_roots_and_folders_that_are_not_entered(tmp_path: Path) -> None:
    tree(tmp_path, "a.md", "b.py", "d/c.md", "d/e/f.md", "i/g.md")
    assert files(tmp_path, globs=("*.md",)) == ["a.md", "d/c.md", "d/e/f.md", "i/g.md"]
    assert files(tmp_path, globs=("d/**", "!*.md", "/*.py")) == ["b.py"]
    assert files(tmp_path, but=lambda path: path == tmp_path / "i") == ["a.md", "b.py", "d/c.md", "d/e/f.md"]
    # Sources inside of each other, and one named twice, give a file once.
    assert sources.roots([tmp_path / "d", tmp_path, tmp_path / "d" / ".." / "d"]) == [tmp_path.resolve()]
    assert files(tmp_path / "d", tmp_path / "a.md") == ["../a.md", "c.md", "e/f.md"]
    assert files(tree(tmp_path, ".one.md") / ".one.md") == ["."]


@pytest.mark.parametrize("given", [["missing"], []])
def test_no_source_is_an_error_and_no_empty_folder(given: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no"):
        sources.roots([tmp_path / name for name in given])


def found(path: Path) -> Found:
    [file] = sources.walk([path], [], lambda path: False, Walk())
    return file


def test_binary_files_are_told_from_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 100 + b"\0")
    with pytest.raises(BinaryError):
        sources.read(found(path))
    path.write_bytes(b"x" * 10000 + b"\0")  # git and grep look no further either
    assert sources.read(found(path))[1].size == 10001
    path.write_bytes("wing".encode("utf-16"))
    assert sources.read(found(path))[1].size == 10
    pdf = path.rename(tmp_path / "a.pdf")
    pdf.write_bytes(b"%PDF\0")
    assert sources.read(found(pdf))[0] == b"%PDF\0"


def test_what_gzip_has_packed_is_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.md.gz"
    path.write_bytes(gzip.compress(b"# A wing\n") + gzip.compress(b"of two parts"))
    data, state = sources.read(found(path))
    assert data == b"# A wing\nof two parts"
    assert state.size == found(path).size == path.stat().st_size, "by which a later run sees a change"
    path.write_bytes(gzip.compress(b"x\0"))
    with pytest.raises(BinaryError):
        sources.read(found(path))
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match=r"a\.md\.gz is not gzip"):
        sources.read(found(path))
    monkeypatch.setattr(sources, "MAX_BYTES", 2**20)
    path.write_bytes(gzip.compress(b"x" * (2**20 + 1)))
    with pytest.raises(ValueError, match=r"a\.md\.gz has more than 1 MiB when it is unpacked"):
        sources.read(found(path))


def test_the_time_of_a_file_counts_only_once_it_has_settled(tmp_path: Path) -> None:
    """Two writes within one tick of a clock cannot be told apart by their times."""
    path = tree(tmp_path, "a.md") / "a.md"
    state = sources.read(found(path))[1]
    assert state.mtime_ns == 0
    assert state.size == path.stat().st_size


def test_a_time_that_is_set_back_is_seen(tmp_path: Path) -> None:
    path = tree(tmp_path, "a.md") / "a.md"
    before = path.stat()
    path.write_text("TEXT of a.md")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert found(path).changed_ns > before.st_mtime_ns


def test_a_file_that_changes_while_it_is_read_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tree(tmp_path, "a.md") / "a.md"
    file, fstat = found(path), os.fstat

    def meanwhile(descriptor: int) -> os.stat_result:
        state = fstat(descriptor)
        with path.open("a") as more:
            more.write("x")
        return state

    monkeypatch.setattr(os, "fstat", meanwhile)
    with pytest.raises(OSError, match="changed while"):
        sources.read(file)


def test_a_file_too_large_for_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_BYTES", 2**20)
    path = tmp_path / "a.md"
    path.write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(ValueError, match=r"a\.md has 1 MiB"):
        sources.read(found(path))
