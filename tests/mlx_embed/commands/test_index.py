"""`mlx-embed index` and `mlx-embed search`, from a folder to answers."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from mlx_embed import cli
from mlx_embed.index import Hit, Index
from mlx_embed.index.chunks import Chunking
from mlx_embed.index.marks import marks
from mlx_embed.progress import Progress
from tests.conftest import DATA, ROOT

MODEL = str(DATA / "tiny-bert")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some files, in the current folder."""
    source = tmp_path / "source"
    (source / "docs").mkdir(parents=True)
    (source / "docs" / "wings.md").write_text(
        "# Wings\n\nIntro.\n\n## Stall\n\nA wing stalls when the flow separates.\n"
    )
    (source / "soup.txt").write_text("Lentil soup needs lentils.\n")
    (source / "rows.jsonl").write_text('{"id": 7, "text": "A violin."}\n{"id": 8, "text": "A train."}\n')
    monkeypatch.chdir(tmp_path)
    return source


def index(*options: str) -> int:
    return cli.main(["index", "--index", "ix", *options])


def found(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert cli.main(["search", "--index", "ix", "--json", *options]) == 0
    return list(json.loads(capsys.readouterr().out))


def test_one_bar_counts_the_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one for each commit; and a file that there is nothing to do with counts too."""
    monkeypatch.setattr("mlx_embed.index.sync._FILES", 1)
    monkeypatch.setattr("mlx_embed.index.writing.batches", lambda files, pace: ([file] for file in files))
    (folder / "binary.txt").write_bytes(b"\0\1")
    shown: list[int] = []

    class Counting(Progress):
        def __call__(self, count: int) -> None:
            super().__call__(count)
            shown.append(self.done)

    @contextmanager
    def counted(show: Any, total: int, unit: str, **options: Any) -> Iterator[Progress]:
        assert (total, unit, options) == (4, "file", {"description": "Indexing", "steps": True})
        yield Counting()

    monkeypatch.setattr("mlx_embed.index.sync.progress", counted)
    assert index("source", "--model", MODEL) == 0
    assert shown == [1, 2, 3, 4]


def test_a_folder_is_indexed_and_searched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert index("source", "--model", MODEL, "-v") == 0
    out = capsys.readouterr().out
    assert "3 indexed, 0 changed, 0 moved, 0 removed, 0 unchanged, 0 failed (4 chunks in " in out
    assert f"indexed {folder}/docs/wings.md\n" in out
    assert cli.main(["search", "--index", "ix", "--mode", "text", "when do wings stall"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("source/docs/wings.md:1  ")
    assert lines[0].endswith("  Wings")
    assert lines[1:] == ["    # Wings", "    ", "    Intro.", "    ", "    ## Stall", "    ", f"    {STALLS}"]
    (folder / "soup.txt").unlink()
    assert index("source") == 0
    assert "0 indexed, 0 changed, 0 moved, 1 removed, 2 unchanged" in capsys.readouterr().out


STALLS = "A wing stalls when the flow separates."


def test_json_has_all_that_is_known(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index("source", "--model", MODEL)
    [hit] = found(capsys, "violin", "--mode", "text")
    assert (hit["path"], hit["line_start"], hit["text"], hit["metadata"]) == (
        f"{folder}/rows.jsonl",
        1,
        "A violin.",
        {"id": 7},
    )
    assert hit["matches"] == [[2, 8]]
    assert len(found(capsys, "violin", "--mode", "vector")) == 4
    assert len(found(capsys, "violin", "--mode", "vector", "-k", "2")) == 2
    assert found(capsys, "violin", "--mode", "text", "--min-score", "1e9") == []


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "Fl\\xfcgel \\u673a"), ("latin-1", "Flügel \\u673a")])
def test_characters_that_the_output_cannot_show(encoding: str, shown: str, folder: Path) -> None:
    (folder / "soup.txt").write_text("Flügel 机\n", encoding="utf-8")
    assert index("source", "--model", MODEL) == 0
    script = "from mlx_embed.cli import main as run; what = ['search', 'Flügel', '--index', 'ix']; run([*what, '-k1']);"
    done = subprocess.run(
        [sys.executable, "-c", f"{script} run([*what, '--json'])"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    _, text, listed = done.stdout.decode(encoding).partition(f"    {shown}\n")
    assert text
    assert json.loads(listed)[0]["text"] == "Flügel 机"


def test_a_search_into_a_string(folder: Path) -> None:
    assert index("source", "--model", MODEL) == 0
    with redirect_stdout(io.StringIO()) as written:  # which has no encoding
        assert cli.main(["search", "wing", "--index", "ix", "--json"]) == 0
    assert json.loads(written.getvalue())


def test_a_search_without_an_output(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert index("source", "--model", MODEL) == 0
    monkeypatch.setattr(sys, "stdout", None)
    for option in ("--json", "--mode=text"):
        assert cli.main(["search", "wing", "--index", "ix", option]) == 0


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["path=*.txt"], {"soup.txt"}),
        (["path=source/docs/**"], {"wings.md"}),
        (["path=**/docs/*"], {"wings.md"}),
        (["path=*.txt", "path=source/**/*.md"], {"soup.txt", "wings.md"}),
        (["id>=8"], {"rows.jsonl"}),
        (["id=9"], set()),
        (["id>=7", "path=*.md"], set()),
    ],
)
def test_filters(filters: list[str], names: set[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index("source", "--model", MODEL)
    options = [option for test in filters for option in ("--filter", test)]
    assert {Path(hit["path"]).name for hit in found(capsys, "a", "--mode", "vector", *options)} == names


def test_context_is_of_the_file_as_long_as_it_is_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "long.md"
    path.write_text("\n\n".join(f"# Part {n}\n\nwords {n} and more of them here." for n in range(9)))
    index("source", "--model", MODEL, "--chunk-tokens", "36", "--glob", "long.md")
    capsys.readouterr()
    search = ["search", "--index", "ix", "--mode", "text", "-k", "1", "--context", "2", "words 4"]
    cli.main(search)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == [
        "words 3 and more of them here.",
        "",
        "# Part 4",
        "",
        "words 4 and more of them here.",
        "",
        "# Part 5",
    ]
    path.write_text("Another text.")
    cli.main(search)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == ["# Part 4", "", "words 4 and more of them here."]


@pytest.mark.parametrize(("test", "message"), [("path!=*.md", "a path takes"), (f"id={10**20}", "has 1000000")])
def test_filters_that_cannot_be(test: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index("source", "--model", MODEL)
    assert cli.main(["search", "a", "--index", "ix", "--filter", test]) == 2
    assert message in capsys.readouterr().err


def test_a_path_through_a_link(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index("source", "--model", MODEL)
    Path("link").symlink_to("source")
    for glob in ("link/docs/*", f"{Path.cwd()}/link/docs/*", "link/docs/wings.md"):
        hits = found(capsys, "a", "--mode", "vector", "--filter", f"path={glob}")
        assert {Path(hit["path"]).name for hit in hits} == {"wings.md"}


def test_what_fails_is_on_stderr_and_in_the_status(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.md").write_bytes(b"na\xefve")
    assert index("source", "--model", MODEL) == 1
    captured = capsys.readouterr()
    assert captured.err.count("bad.md") == 1
    assert f"failed: {folder}/bad.md:1 is not UTF-8" in captured.err
    assert "1 failed" in captured.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["missing"], "There is no folder or file missing"),
        ([""], "source is empty"),
        (["source", "--chunk-tokens", "0"], "tokens 0 is not a positive number of tokens"),
        (["source", "--chunk-tokens", "9999"], "longer than the model takes"),
        (["source", "--chunk-overlap", "-1"], "overlap of -1"),
    ],
)
def test_bad_options(options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert index(*options, "--model", MODEL) == 2
    assert message in capsys.readouterr().err
    assert not Path("ix").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chunk-tokens", "20"], "ix was made with --chunk-tokens 30: leave"),
        (["--chunk-overlap", "3"], "ix was made with --chunk-overlap 4: leave"),
        (["--field", "title"], "ix was made without --field: leave"),
        (["--model", str(DATA / "tiny-mpnet")], "ix is of"),
    ],
)
def test_an_index_is_of_one_kind(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index("source", "--model", MODEL, "--chunk-tokens", "30", "--chunk-overlap", "4")
    assert index("source", "--chunk-tokens", "30", "--chunk-overlap", "4") == 0
    capsys.readouterr()
    assert index("source", *options) == 2
    assert message in capsys.readouterr().err
    assert index("source") == 0  # the lock was given back


def test_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.csv").write_text("title,body,id\nWings,They stall,1\n")
    (folder / "rows.jsonl").unlink()
    assert index("source", "--model", MODEL, "--field", "title", "--field", "body") == 0
    assert found(capsys, "stall", "--mode", "text", "--filter", "id=1")[0]["text"] == "Wings They stall"
    assert index("source", "--field", "title") == 2
    assert "was made with --field title --field body: leave --field out" in capsys.readouterr().err


def test_a_new_index_of_nothing_holds_nobody_to_its_options(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = str(folder / "rows.jsonl")
    assert index(rows, "--model", MODEL, "--field", "txet") == 1
    assert "has no 'txet'" in capsys.readouterr().err
    assert index(rows, "--model", MODEL) == 0
    (folder / "bad.jsonl").write_text("{")
    assert index(str(folder / "bad.jsonl")) == 1
    assert found(capsys, "violin", "--mode", "text")


def test_searching_what_is_no_index(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "--index", "nothing", "q"]) == 2
    assert "nothing" in capsys.readouterr().err
    index("source", "--model", MODEL)
    for options in (["--context", "-1"], ["-k", "0"], ["--filter", "x"]):
        assert cli.main(["search", "--index", "ix", "q", *options]) == 2
    capsys.readouterr()
    assert cli.main(["search", "--index", "ix", "--mode", "text", "nowhere"]) == 0
    assert capsys.readouterr() == ("", "Nothing is found.\n")


def test_a_filter_that_nothing_passes_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index("source", "--model", MODEL)
    search = ["search", "--index", "ix"]
    for query, options, why in (
        ("soup", ["--filter", "yaer>2000"], ": nothing passes --filter yaer>2000"),
        ("soup", ["--filter", "path=docs/**"], f": nothing passes --filter path=docs/** (path: {Path.cwd()}/docs/**)"),
        ("soup", ["--filter", "path=*.md", "--mode", "text"], ""),
        ("soup", ["--filter", "path=*.md", "--min-score", "9"], ""),
        (" ", ["--filter", "path=*.md"], ""),
    ):
        capsys.readouterr()
        assert cli.main([*search, *options, query]) == 0
        assert capsys.readouterr() == ("", f"Nothing is found{why}.\n")


@pytest.mark.parametrize(("name", "message"), [("file", "is a file; name a new folder"), ("source", "in a new folder")])
def test_an_index_has_a_folder_of_its_own(
    name: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    assert cli.main(["index", "source", "--index", name, "--model", MODEL]) == 2
    assert message in capsys.readouterr().err


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What the command prints where its output is a terminal."""
    master, slave = pty.openpty()
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "mlx_embed.cli", *arguments], stdout=slave, stderr=subprocess.DEVNULL, env=settings
    )
    os.close(slave)
    out = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # how Linux says that nobody writes any more
            part = b""
        if not part:
            break
        out += part
    assert process.wait() == 0
    os.close(master)
    return out.decode().replace("\r\n", "\n")


def test_words_are_marked_on_a_terminal_and_nothing_reaches_it_raw(folder: Path) -> None:
    (folder / "evil.txt").write_text("A violin \x1b]0;owned\x07 and \x9b31m more violins.\r\n")
    index("source", "--model", MODEL)
    search = ("search", "--index", "ix", "--mode", "text", "violin", "--filter", "path=evil.txt")
    out = on_a_terminal(*search)
    assert "A \x1b[1;33mviolin\x1b[0m \\x1b]0;owned\\x07 and \\x9b31m more \x1b[1;33mviolins\x1b[0m." in out
    assert "\x1b" not in on_a_terminal(*search, NO_COLOR="1")


def test_names_and_headings_are_in_one_line_that_can_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    title = "long " * 400
    (folder / "a\nb\x1b.md").write_text(f"# {title}\n\nA violin.\n\n## {'x' * 80}\n\nMore violins.")
    (folder / "c\nd.md").write_bytes(b"\xff")
    (folder / "e\n.txt").write_text("Soup.")
    index("source", "--model", MODEL, "-v")
    (folder / "f\n.txt").write_text((folder / "e\n.txt").read_text())
    (folder / "e\n.txt").unlink()
    (folder / "g\n.txt").write_text("Heat.")
    index("source", "-v")
    (folder / "g\n.txt").unlink()
    index("source", "-v")
    said = capsys.readouterr()
    assert f"indexed {folder}/a\\x0ab\\x1b.md\n" in said.out
    assert f"moved {folder}/e\\x0a.txt to {folder}/f\\x0a.txt\n" in said.out
    assert f"removed {folder}/g\\x0a.txt\n" in said.out
    assert f"failed: {folder}/c\\x0ad.md:1 is not UTF-8" in said.err
    search = ["search", "--index", "ix", "--mode", "text", "more violins", "-k", "1"]
    assert cli.main(search) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("source/a\\x0ab\\x1b.md:")
    assert shown[0].endswith(f"  {title[:77]}... > {'x' * 80}")
    assert cli.main([*search, "--json"]) == 0
    [hit] = json.loads(capsys.readouterr().out)
    assert (hit["path"], hit["heading"]) == (f"{folder}/a\nb\x1b.md", [title.strip(), "x" * 80])
    assert cli.main(["index", "none\x1b", "--index", "ix"]) == 2
    assert "There is no folder or file none\\x1b." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("query", "text", "words"),
    [
        ("stalling wings", "The wing stalls, stalled.", ["wing", "stalls", "stalled"]),
        ("the wing", "The wing of the bird", ["wing"]),
        ("the", "The wing of the bird", ["The", "the"]),
        ('"NOT" OR (x*', "x or y", ["x"]),
        ("äußern", "Äußern", ["Äußern"]),
        ("", "text", []),
        ("\0", "text", []),
        ("re\u0301sume\u0301s", "a résumé, a sum", ["résumé"]),
        ("हिन्दी", "हिन्दी और हनद", ["हिन्दी"]),
        ("word", "a\0word", ["word"]),
        ("nothing", "else", []),
    ],
)
def test_marks(query: str, text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in marks(query, text)] == words


def test_watching_takes_in_changes_as_they_come(folder: Path) -> None:
    script = "import sys; from mlx_embed import cli; from mlx_embed.commands import index; index.LOOK_EVERY = 0.1; "
    options = ["index", "source", "--index", "ix", "--model", MODEL, "--watch"]
    command = [sys.executable, "-u", "-c", f"{script}sys.exit(cli.main())", *options]
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stderr.readline() == "Watching: Ctrl-C ends it.\n"
        assert process.stdout.readline().startswith("3 indexed")
        (folder / "new.md").write_text("A bridge over the river.")
        assert process.stdout.readline().startswith("1 indexed")
        with Index.open("ix", read_only=True) as reader:
            assert len(reader.search("bridge", mode="text")) == 1
            folder.rename("elsewhere")
            assert process.stderr.readline().startswith("source is away")
            assert len(reader) == 5
        Path("elsewhere", "newer.md").write_text("Another bridge.")
        Path("elsewhere").rename(folder)
        assert process.stdout.readline().startswith("1 indexed, 0 changed, 0 moved, 0 removed, 4 unchanged")
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stdout.read() == process.stderr.read() == ""


def test_a_rerankers_score_decides(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_embed import CrossEncoder

    given: list[Any] = []
    monkeypatch.setattr(CrossEncoder, "from_pretrained", lambda name: name)

    def search(self: Index, query: str, k: int, **options: Any) -> list[Hit]:
        given.append((query, k, options))
        return []

    index("source", "--model", MODEL)
    monkeypatch.setattr(Index, "search", search)
    cli.main(["search", "--index", "ix", "q", "-k", "3", "--reranker", "some/reranker", "--min-score", "0.5"])
    options = {"mode": "hybrid", "filter": None, "rerank": "some/reranker", "min_score": 0.5}
    assert given == [("q", 3, {**options, "filter": {}})] or given == [("q", 3, options)]


def test_the_index_names_its_chunking(folder: Path) -> None:
    index("source", "--model", MODEL, "--chunk-tokens", "30", "--field", "text")
    with Index.open("ix", read_only=True) as opened:
        assert Chunking.of(opened.chunker) == Chunking(30, 3, ("text",))
