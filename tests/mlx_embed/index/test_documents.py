"""The text of each kind of file, and where it stands in the file."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from mlx_embed.index import documents, html
from mlx_embed.index.documents import Document


def read(name: str, data: bytes | str, fields: tuple[str, ...] = ()) -> list[Document]:
    return documents.read(Path(name), data.encode() if isinstance(data, str) else data, fields)


TEXTS = [
    "one\ntwo\n\nthree",
    "",
    "\n",
    "ä\nöö\n\U0001f600 end",
    "\ufeffmark\nä",
    "\ufeffmark\nb",
    "a\r\nb\r\n",
    "x\u2028y\x0bz\n\x85",
]


@pytest.mark.parametrize("block", [1, 3, 4096])
@pytest.mark.parametrize("text", TEXTS)
def test_places_of_a_text_are_exact(text: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_BLOCK", block)
    data = text.encode()
    [document] = read("a.txt", data)
    assert document.text == text.removeprefix("\ufeff")
    for start in range(len(document.text) + 1):
        for end in range(start, len(document.text) + 1):
            place = document.places(start, end)
            assert data[place.byte_start : place.byte_end].decode() == document.text[start:end]
            assert place.line_start == 1 + data[: place.byte_start].count(b"\n")
            if end > start:
                assert place.line_end == 1 + data[: place.byte_end].rstrip(b"\n").count(b"\n") or text[end - 1] == "\n"


def test_an_end_behind_a_line_is_on_that_line() -> None:
    [document] = read("a.txt", "a\nb\nc")
    assert [document.places(0, end)[2:] for end in (1, 2, 3, 4, 5)] == [(1, 1), (1, 1), (1, 2), (1, 2), (1, 3)]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.md", b"good\nna\xefve", r"a\.md:2 is not UTF-8: invalid continuation byte"),
        ("a.txt", "x".encode("utf-16"), r"a\.txt is UTF-16, where UTF-8"),
        ("a.html", b"<p>na\xefve", r"a\.html:1 is not UTF-8"),
        ("a.html", b"<meta charset=nonsense><p>na\xefve", r"a\.html:1 is not UTF-8"),
        ("a.html", b"<meta charset=ascii><p>na\xefve", r"a\.html:1 is not UTF-8"),
    ],
)
def test_what_is_no_utf_8_is_named_with_its_line(name: str, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(name, data)


PAGE = """<!doctype html><html><head><title>The
 title</title><style>p { x: "<p>" }</style></head>
<body><h1>First <em>one</em></h1><p>A   paragraph &amp; an
entity.</p><!-- no --><script>if (a < b) no()</script>
<ul><li>item <b>bo</b>ld</li><li>two</li></ul><pre>  kept
 as is</pre><h2>Second</h2><table><tr><td>a</td><td>b</td></tr></table>tail<br>end</body></html>"""


def test_html() -> None:
    [document] = read("a.html", PAGE)
    assert document.text == (
        "First one\n\nA paragraph & an entity.\n\nitem bold\ntwo\n\n  kept\n as is\n\nSecond\n\na b\n\ntail\nend"
    )
    assert [(document.text[s.start :].split("\n")[0], s.path) for s in document.sections] == [
        ("First one", ("The title",)),
        ("First one", ("The title", "First one")),
        ("Second", ("The title", "First one", "Second")),
    ]


@pytest.mark.parametrize("words", ["First", "an entity", "bo", "kept", "Second", "a b", "end"])
def test_places_of_html_are_those_of_its_source(words: str) -> None:
    [document] = read("a.html", PAGE)
    start = document.text.index(words)
    place = document.places(start, start + len(words))
    source = PAGE.encode()[place.byte_start : place.byte_end].decode()
    for word in words.split():
        assert word in source
    assert len(source) < 60
    assert place.line_start == 1 + PAGE.encode()[: place.byte_start].count(b"\n")


def test_places_in_a_long_line_are_found_without_encoding_all_of_it() -> None:
    [document] = read("a.txt", "日本語。" * 10_000)
    encoded: list[int] = []
    places = document.places
    assert isinstance(places, documents.FilePlaces)
    places._text = Sliced(places._text)
    places._text.sizes = encoded
    assert places(20_000, 39_999)[:2] == (60_000, 119_997)
    assert sum(encoded) < 2 * 4096


class Sliced(str):
    """A text that says how long the parts are which are taken of it."""

    sizes: list[int]

    def __getitem__(self, part: Any) -> str:
        taken = super().__getitem__(part)
        self.sizes.append(len(taken))
        return taken


def test_codes_of_two_characters_are_not_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_BLOCK", 1)
    data = '<meta charset="big5hkscs"><p>\u00ca\u0304 x</p>'.encode("big5hkscs")
    [document] = read("a.html", data)
    assert document.places(3, 4)[:2] == (len(data) - 8, len(data) - 4)


def test_html_in_the_encoding_that_it_states() -> None:
    [document] = read("a.html", b'<meta charset="latin-1"><p>na\xefve</p><p>x</p>')
    assert document.text == "naïve\n\nx"
    assert document.places(7, 8)[:2] == (39, 40)


@pytest.mark.parametrize("page", ["<p>a<", "<", "<!--", "<![CDATA[x", "&#xffffffff;", "</p></p><b", "<pre>", "<a <b>x"])
def test_broken_html_is_read(page: str) -> None:
    assert len(read("a.html", page)) == 1


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("a<!-->b<!--->c<!--x--!>d<!--!>e-->f<!-- > -- > -->g", "abcdfg"),
        ("a<!-- never > b</p>", "a"),
        ("<svg><math></svg>a<svg><svg></svg>b</svg>c<svg/>d", "acd"),
        ("a<script>b</script>c<svg><script></script></svg>d", "acd"),
    ],
)
def test_what_html_hides(page: str, text: str) -> None:
    [document] = read("a.html", page)
    assert document.text == text


def test_a_picture_has_no_text() -> None:
    picture = '<?xml version="1.0"?>\n<svg viewBox="0 0 9 9"><title>Speed</title><text fill="red">1 ms</text></svg>\n'
    assert [document.text for document in read("a.SVG", picture)] == [""]


def test_comments_without_an_end_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11's parser looks through the rest of the page for each of them."""
    looks: list[int] = []
    look = html._Parser.parse_comment

    def counted(self: html._Parser, i: int, report: bool = True) -> int:
        looks.append(i)
        return look(self, i, report)

    monkeypatch.setattr(html._Parser, "parse_comment", counted)
    [document] = read("a.html", "text" + "<!-- >" * 100)
    assert (document.text, looks) == ("text", [4])


def test_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"id": "é", "text": "one"}, {"id": "b", "text": "two"}]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n")
    data = path.read_bytes()
    found = documents.read(path, data)
    assert [(d.text, d.metadata) for d in found] == [("one", {"id": "é"}), ("two", {"id": "b"})]
    places = [d.places(0, 3) for d in found]
    assert [place[2:] for place in places] == [(1, 1), (2, 2)]
    assert [json.loads(data[p.byte_start : p.byte_end]) for p in places] == rows


def test_rows_of_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('title,body\na,"x\ny"\nb,z')
    data = path.read_bytes()
    found = documents.read(path, data, ("title", "body"))
    assert [d.text for d in found] == ["a x\ny", "b z"]
    assert [d.places(0, 1)[2:] for d in found] == [(2, 3), (4, 4)]
    assert [data[slice(*d.places(0, 1)[:2])] for d in found] == [b'a,"x\ny"\n', b"b,z"]


def test_rows_without_the_column_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("title\na\n")
    with pytest.raises(ValueError, match=r"a\.csv has no column 'text'; it has title"):
        documents.read(path, path.read_bytes())


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow, extra parquet")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"text": ["one", "two"], "id": [5, 6]}), path)
    found = documents.read(path, path.read_bytes())
    assert [(d.text, d.metadata, d.places(0, 1)) for d in found] == [
        ("one", {"id": 5}, (0, 0, 1, 1)),
        ("two", {"id": 6}, (0, 0, 2, 2)),
    ]


def docx_file() -> bytes:
    docx: Any = pytest.importorskip("docx", reason="python-docx, extra documents")
    made = docx.Document()
    made.add_heading("Wings", level=0)
    made.add_paragraph("About wings.")
    made.add_heading("Stall", level=1)
    table = made.add_table(rows=2, cols=2)
    for row, cells in zip(table.rows, (("a", "b"), ("c", "d")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    table.rows[1].cells[0].merge(table.rows[1].cells[1])
    made.add_paragraph("After.")
    file = io.BytesIO()
    made.save(file)
    return file.getvalue()


def test_docx() -> None:
    [document] = read("a.docx", docx_file())
    assert document.text.split("\n\n") == ["Wings", "About wings.", "Stall", "a | b", "c\nd", "After.", ""]
    assert [s.path for s in document.sections] == [("Wings",), ("Stall",)]
    start = document.text.index("After")
    assert document.places(start, start + 5) == (0, 0, 6, 6)
    assert document.places(0, start + 5) == (0, 0, 1, 6)


def pdf_file(*pages: str) -> bytes:
    """A PDF of pages with a line each, written by hand."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        content = f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET".encode()
        resources = "/MediaBox [0 0 600 800] /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R {resources} /Contents {5 + 2 * number} 0 R >>".encode())
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    out, places = b"%PDF-1.4\n", []
    for number, data in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, data)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (len(objects) + 1, table, len(objects) + 1, len(out))
    )


def test_pdf() -> None:
    pytest.importorskip("pypdf", reason="pypdf, extra documents")
    [document] = read("a.pdf", pdf_file("The wing stalls.", "The second page."))
    assert document.text == "The wing stalls.\n\nThe second page.\n\n"
    start = document.text.index("second")
    assert document.places(start, start + 6) == (0, 0, 2, 2)
    assert document.places(0, start) == (0, 0, 1, 2)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.pdf", b"%PDF-1.4 nothing", "is no PDF that can be read"),
        ("a.pdf", b"", "is no PDF that can be read"),
        ("a.docx", b"PK nothing", "is no DOCX that can be read"),
        ("a.pdf", pdf_file("", ""), "has no text in its 2 pages"),
    ],
)
def test_broken_documents_are_named(name: str, data: bytes, message: str) -> None:
    pytest.importorskip("pypdf", reason="pypdf, extra documents")
    pytest.importorskip("docx", reason="python-docx, extra documents")
    with pytest.raises(ValueError, match=message):
        read(name, data)


def test_what_pypdf_logs_is_in_the_reason_and_not_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pypdf", reason="pypdf, extra documents")
    monkeypatch.setattr(logging.getLogger("pypdf"), "propagate", False)  # as where nothing listens to any log
    with pytest.raises(ValueError, match=r"a\.pdf is no PDF that can be read: .*; EOF marker not found\.$"):
        documents.read(Path("a.pdf"), b"%PDF-1.4 nothing")
    broken = pdf_file("The wing stalls.").replace(b"startxref\n", b"startxref\n1")
    assert "wing" in documents.read(Path("a.pdf"), broken)[0].text
    assert capsys.readouterr() == ("", "")
    assert logging.getLogger("pypdf").handlers == []


@pytest.mark.parametrize(("name", "package"), [("a.pdf", "pypdf"), ("a.docx", "docx")])
def test_a_missing_reader_is_told(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match=r"\.\[documents\]"):
        read(name, b"")


@pytest.mark.parametrize("odd", ["<![foo bar >", '<![ "x" ]>', "<![CDATA[x]]>", "<![if gte mso 9]>"])
def test_a_declaration_that_is_none_in_html(odd: str) -> None:
    """Python's parser stops at some of them."""
    [document] = read("a.html", f"<p>The wing</p>{odd}<p>stalls.</p><p>Soup.</p>")
    assert document.text.startswith("The wing")
    assert document.text.endswith("Soup.")


@pytest.mark.parametrize("tag", ["<a ", '<p x="', "<!--"])
def test_tags_that_never_end_are_left_out(tag: str) -> None:
    """And take no time that grows with their square."""
    [document] = read("a.html", "<p>The wing, 1 < 2</p> and more" + tag * 200_000)
    assert document.text == "The wing, 1 < 2\n\nand more"


def test_rows_that_are_no_unicode(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "\\udc00", "text": "a \\ud83d wing"}\n')
    [document] = documents.read(path, path.read_bytes())
    assert (document.text, document.metadata) == ("a \ufffd wing", {"id": "\ufffd"})


def test_ids_of_csv_are_numbers_where_they_are_spelled_so(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text\n7,a\n007,b\nx1,c\n-1,d\n")
    assert [found.metadata["id"] for found in documents.read(path, path.read_bytes())] == [7, "007", "x1", "-1"]


def test_a_broken_parquet_file_is_a_broken_file(tmp_path: Path) -> None:
    """pyarrow says OSError, as of a file that cannot be opened."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": ["lemon pie"] * 50}), path)
    data = bytearray(path.read_bytes())
    data[-40:-8] = b"\xff" * 32
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.parquet"):
        documents.read(path, bytes(data))
