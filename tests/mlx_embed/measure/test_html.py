"""The comparison's page: it stands alone, says what the rows say, and a browser shows a mark for each of them."""

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mlx_embed import cli
from mlx_embed.measure import html
from mlx_embed.measure.html import page
from mlx_embed.measure.report import Agreement, Latency, Launches, OpRow, Report, read_report, to_json
from mlx_embed.pages import charts
from tests.mlx_embed.measure.test_report import REPORT, SUBJECT, op_row, steady
from tests.mlx_embed.pages.browser import chromium, opened

NORM = OpRow("layer_norm", "[3, 384]", "native cpu", "float32", steady(2e-6), None, 2e-6, 9216, 5e-7)
FULL = replace(
    REPORT,
    layer_norm=(NORM, replace(NORM, way="ops, cpu", call=steady(5e-5))),
    ops=(op_row(5e-7), replace(op_row(5e-7), input="<many> & rows", limit=2e-4, bytes=100)),
    launches=(Launches("this package's", 42, {"gemm_<kernel>": 40, "norm": 2}),),
    primitives={"mlx cpu": 815},
    few=3,
    left_out=("a <thing>",),
)
OTHER = replace(
    FULL,
    latency=tuple(replace(row, time=steady(row.time.seconds / 2)) for row in FULL.latency),
    batching=(),
)


class Elements(HTMLParser):
    """All elements of a page, with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str]]:
    """The specifications that would be drawn."""
    drawn: list[tuple[Any, str]] = []
    monkeypatch.setattr(charts, "svg", lambda spec, label: drawn.append((spec, label)) or "<svg></svg>")
    return drawn


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    return {"one": page({"here": FULL}), "two": page({"a": FULL, "b": OTHER})}


def values(spec: Any) -> list[dict[str, Any]]:
    return spec["data"]["values"]


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(to_json(FULL))
    assert read_report(file) == FULL


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no result of `mlx-embed compare --json`"),
        ("[]", "[] stands where an object is needed"),
        ("{}", "'subject'"),
        (to_json(FULL).replace('"cores": 4', '"cores": "4"'), "'4' stands where"),
        (to_json(FULL).replace('"seconds": 0.01,', '"seconds": null,', 1), "None stands where"),
        (to_json(FULL).replace('"dtype": "float32"', '"dtype": "float3"'), "'float3'"),
    ],
)
def test_what_is_no_report(tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    assert cli.main(["report", str(file), "-o", str(tmp_path / "a.html")]) == 2
    said = capsys.readouterr().err
    assert str(file) in said
    assert says in said
    assert not (tmp_path / "a.html").exists()


def test_a_result_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.json"
    file.write_text(to_json(FULL))
    assert cli.main(["report", str(file), "-o", str(file)]) == 2
    assert "is read or written already" in capsys.readouterr().err
    assert read_report(file) == FULL


def test_names_tell_reports_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mac.json").write_text(to_json(FULL))
    assert list(html.named_reports([tmp_path / "a/mac.json", tmp_path / "b/mac.json"])) == ["mac", "mac'"]


@pytest.mark.parametrize(
    ("report", "kind", "word"),
    [
        (FULL, "good", "✓ The numbers agree."),
        (replace(FULL, agreement=(Agreement("x", "float32", 1.0, 0.5),)), "bad", "✗ The numbers do not agree."),
        (
            replace(FULL, batching=(replace(FULL.batching[0], batched=steady(9.0)),)),
            "bad",
            "✗ The times contradict each other.",
        ),
    ],
)
def test_the_verdict_is_at_the_top(report: Report, kind: str, word: str, no_charts: Any) -> None:
    found = page({"here": report})
    top = found[: found.index("<section")]
    assert f"class='verdict {kind}'" in top
    assert word in top
    for failure in report.failures:
        assert failure in top


def test_charts_have_what_the_rows_say(no_charts: list[tuple[Any, str]]) -> None:
    page({"a": FULL, "b": OTHER})
    by_label = {label: spec for spec, label in no_charts}
    lat = values(by_label["Milliseconds of each side against the number of texts in a call"])
    assert [(v["report"], v["side"], v["texts"], v["ms"]) for v in lat] == [
        (name, row.side, row.texts, 1e3 * row.time.seconds)
        for name, report in (("a", FULL), ("b", OTHER))
        for row in report.latency
    ]
    against = values(by_label["How many times as fast each side is as in a, by texts in a call"])
    assert [v["times"] for v in against] == pytest.approx([2.0] * len(FULL.latency))
    norm = values(by_label["Microseconds of layer_norm on [3, 384] by each way to compute it"])
    assert [(v["way"], v["us"], v["limit"]) for v in norm] == 2 * [
        ("native cpu", pytest.approx(2.0), pytest.approx(0.5)),
        ("ops, cpu", pytest.approx(50.0), pytest.approx(0.5)),
    ]
    best = values(by_label["Milliseconds of each report's quickest side against the number of texts in a call"])
    assert [(v["texts"], v["ms"]) for v in best if v["report"] == "a"] == [(1, 2.0), (100, 10.0)]


def test_a_change_within_the_spread_is_none(no_charts: Any) -> None:
    near = replace(FULL, latency=tuple(replace(r, time=steady(1.04 * r.time.seconds)) for r in FULL.latency))
    assert {row["change"] for row in html._changes({"a": FULL, "b": near})} == {"within the spread"}
    assert {row["change"] for row in html._changes({"a": FULL, "b": OTHER})} == {"faster"}
    assert {row["change"] for row in html._changes({"a": OTHER, "b": FULL})} == {"slower"}


def test_other_models_are_said_to_be_others(no_charts: Any) -> None:
    other = replace(OTHER, subject=replace(SUBJECT, model="another", mlx="9"))
    assert "These are of different models and versions of MLX" in page({"a": FULL, "b": other})
    assert "These are of different" not in page({"a": FULL, "b": OTHER})


def test_a_page_needs_nothing_from_elsewhere(drawn: dict[str, str]) -> None:
    for text in drawn.values():
        assert len(text) < 1_000_000
        elements = Elements(text).found
        links = [value for _, attributes in elements for key, value in attributes.items() if key in ("src", "href")]
        assert links == ["data:,"]
        assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", text)
        assert "default-src 'none'" in text


def test_names_are_text_and_no_markup(drawn: dict[str, str]) -> None:
    assert "<many>" not in drawn["one"]
    assert "&lt;many&gt; &amp; rows" in drawn["one"]
    assert "gemm_<kernel>" not in drawn["one"]
    assert "a <thing>." in "".join(Elements(drawn["one"]).text)


def test_every_mark_says_what_it_is(drawn: dict[str, str]) -> None:
    says = [a["aria-label"] for _, a in Elements(drawn["one"]).found if "aria-label" in a]
    for row in FULL.latency:
        start = f"{row.side}, {row.texts} text"
        # Once on the wide picture and once on the narrow; the ratio's has the base left out.
        found = [label for label in says if str(label).startswith(start) and "one batch" not in str(label)]
        assert len(found) == (2 if row.side == "mlx cpu" else 4)
    assert any(label == "native cpu: 2 us; a copy of as many bytes takes 0.5 us" for label in says)


def test_the_commands_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_charts: Any) -> None:
    from mlx_embed.measure import compare as module

    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    monkeypatch.setattr(module, "compare", lambda *_: FULL)
    target, before = tmp_path / "page.html", tmp_path / "before.json"
    before.write_text(to_json(OTHER))
    assert cli.main(["compare", "--html", str(target)]) == 0
    assert "Side by side" not in target.read_text()
    assert cli.main(["compare", "--html", str(target), "--baseline", str(before)]) == 0
    assert "times as fast as in before" in str(no_charts)
    assert cli.main(["report", str(before), str(before), "-o", str(target)]) == 0
    wrong = tmp_path / "wrong.json"
    wrong.write_text(to_json(replace(FULL, ops=(op_row(1.0),))))
    assert cli.main(["report", str(wrong), "-o", str(target)]) == 1
    assert "The numbers do not agree" in target.read_text()


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["compare", "--baseline", "a.json"]) == 2
    assert "name that with --html" in capsys.readouterr().err
    assert cli.main(["compare", "--html", str(tmp_path / "no/page.html")]) == 2
    assert cli.main(["report", str(tmp_path / "absent.json")]) == 2
    assert "absent.json" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    assert cli.main(["compare", "--html", str(tmp_path / "page.html")]) == 2
    assert 'pip install ".[report]"' in capsys.readouterr().err


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1400, "light")])
def test_in_a_browser(width: int, scheme: str, drawn: dict[str, str], browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(drawn["one"], encoding="utf-8")
    shown, complaints = opened(browser, file.as_uri(), width, scheme)
    assert complaints.said == []
    assert [address for address in complaints.asked if not address.startswith("data:")] == []
    assert shown.evaluate("document.documentElement.scrollWidth") <= width, "the page is wider than the window"
    marks = shown.locator("figure:visible svg:visible path[aria-roledescription=point]:visible")
    others = [row for row in FULL.latency if row.side != "mlx cpu"]
    assert marks.count() == len(FULL.latency) + len(others)
    bars = shown.locator("path[aria-roledescription=bar]:visible")
    assert bars.count() == len(FULL.batching) + len(FULL.layer_norm) + len(FULL.ops) + 2
    paper = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = shown.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) > sum(map(int, re.findall(r"\d+", ink)[:3]))) == (
        scheme == "light"
    )
    # On paper it is dark on light, whatever the system's colours are, and tables are unfolded.
    shown.emulate_media(media="print")
    for element in ("body", ".verdict", "figure"):
        look = f"getComputedStyle(document.querySelector('{element}'))"
        paper, ink = (shown.evaluate(f"{look}.{name}") for name in ("backgroundColor", "color"))
        light, dark = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink))
        assert light > 600 > 300 > dark, element
    assert shown.locator("details table").first.evaluate("e => e.getBoundingClientRect().height") > 0
    shown.emulate_media(media="screen")
    # Nothing that can be read lies beyond its picture's frame.
    beyond = shown.evaluate(
        """() => [...document.querySelectorAll("figure svg")].filter(s => s.checkVisibility()).flatMap(svg => {
             const frame = svg.closest("figure").getBoundingClientRect();
             return [...svg.querySelectorAll("text")].filter(t => {
               const box = t.getBoundingClientRect();
               return box.width && (box.left < frame.left || box.right > frame.right);
             }).map(t => t.textContent);
           })"""
    )
    assert beyond == []
    marks.first.hover()
    assert shown.locator("#tip").is_visible()
    assert shown.locator("#tip").text_content() == marks.first.get_attribute("aria-label")
    shown.context.close()


def test_latency_rows_of_sides_that_only_one_has(no_charts: Any) -> None:
    alone = replace(OTHER, latency=(Latency(1, "metal", steady(1.0), None),))
    assert "Side by side" in page({"a": FULL, "b": alone})
