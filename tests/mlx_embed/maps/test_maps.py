"""Maps: where texts lie, their clusters and words, the page's data, Parquet, and the page in a browser."""

import base64
import gzip
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel, cli
from mlx_embed.index import Index
from mlx_embed.maps import layout
from mlx_embed.maps.clusters import clustered, words
from mlx_embed.maps.corpus import Corpus, of_file, of_index
from mlx_embed.maps.html import Map, page
from mlx_embed.records import reading
from tests.conftest import DATA
from tests.mlx_embed.pages.browser import chromium, opened

TOPICS = ("wing lift drag flow", "soup lentil cumin lemon", "train coast leaves seven")
TIMES = 20


def corpus(**columns: list[Any]) -> Corpus:
    """Sixty texts of three topics, whose vectors lie around three axes; the last text has markup in it."""
    rng = np.random.default_rng(0)
    texts = [f"{TOPICS[i % 3]} number{i} here" for i in range(3 * TIMES)]
    texts[-1] += " <b>bold</b>"
    vectors = np.eye(8, dtype=np.float32)[np.arange(3 * TIMES) % 3] + 0.1 * rng.normal(size=(3 * TIMES, 8))
    return Corpus("a <corpus>", [f"t{i}" for i in range(3 * TIMES)], texts, vectors.astype(np.float32), columns)


def mapped() -> Map:
    """The corpus, laid out by hand: three far heaps."""
    rng = np.random.default_rng(1)
    heaps = np.array([[0.2, 0.2], [0.8, 0.2], [0.5, 0.8]])[np.arange(3 * TIMES) % 3]
    places = (heaps + 0.01 * rng.normal(size=heaps.shape)).astype(np.float32)
    found = corpus(number=list(range(3 * TIMES)), kind=["<i>", None, "plain"] * TIMES)
    labels = clustered(places)
    return Map(found, places, labels, words(found.texts, labels))


def data_of(text: str) -> dict[str, Any]:
    """What a page carries."""
    (squeezed,) = re.findall(r"id='data'>([^<]*)</script>", text)
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(squeezed)))
    return found


def cells(text: str) -> Any:
    return np.frombuffer(base64.b64decode(text), "<u2")


def test_clusters_are_heaps_and_the_largest_is_first() -> None:
    rng = np.random.default_rng(0)
    sizes = [300, 900, 600]
    centres = [(0.2, 0.2), (0.8, 0.3), (0.4, 0.8)]
    places = np.concatenate([rng.normal(c, 0.03, size=(n, 2)) for c, n in zip(centres, sizes, strict=True)])
    labels = clustered(places.astype(np.float32))
    truth = np.repeat([2, 0, 1], sizes)
    assert labels.max() == 2
    assert (labels == truth).mean() > 0.9
    assert set(labels[labels != truth]) <= {-1}, "what is in a cluster is in the right one"


def test_one_heap_is_one_cluster_and_few_points_are_none() -> None:
    rng = np.random.default_rng(0)
    assert set(clustered(rng.normal(0.5, 0.05, size=(2000, 2)).clip(0, 1).astype(np.float32))) <= {0, -1}
    assert set(clustered(np.array([[0, 0], [1, 1]], dtype=np.float32))) == {-1}


@pytest.mark.parametrize(("apart", "clusters"), [(0.3, 2), (0.08, 1)])
def test_a_deep_valley_parts_and_a_shallow_one_does_not(apart: float, clusters: int) -> None:
    rng = np.random.default_rng(0)
    heaps = [rng.normal((0.5 + side * apart / 2, 0.5), 0.06, size=(3000, 2)) for side in (-1, 1)]
    assert clustered(np.concatenate(heaps).clip(0, 1).astype(np.float32)).max() + 1 == clusters


def test_words_tell_clusters_apart() -> None:
    texts = [f"the of {word} and number{i}" for i, word in enumerate(["wing"] * 30 + ["soup"] * 30)]
    found = words(texts, np.repeat([0, 1], 30).astype(np.int32))
    assert [one[0] for one in found] == ["wing", "soup"]
    assert not any(word.startswith("number") for one in found for word in one), "of one text alone"
    assert words(["wing"], np.array([-1], dtype=np.int32)) == []


def test_words_of_clusters_keep_their_marks() -> None:
    texts = ["हिन्दी_3D पंखा"] * 3 + ["re\u0301sume\u0301 2024"] * 3
    assert words(texts, np.repeat([0, 1], 3).astype(np.int32)) == [["पंखा", "हिन्दी"], ["re\u0301sume\u0301"]]


def test_live_layout_keeps_neighbours() -> None:
    pytest.importorskip("pacmap", reason="the extra map is not installed")
    vectors = corpus().vectors
    places = layout.laid_out(vectors)
    assert places.dtype == np.float32
    assert places.shape == (3 * TIMES, 2)
    assert places.min() >= 0
    assert places.max() <= 1
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1) + 9 * np.eye(len(places))
    assert (apart.argmin(axis=1) % 3 == np.arange(3 * TIMES) % 3).all(), "the nearest is of the same topic"
    np.testing.assert_array_equal(layout.laid_out(vectors), places, "the same again")
    np.testing.assert_allclose(layout.laid_out(3 * vectors), places, atol=0.02, err_msg="only the direction counts")


@pytest.mark.parametrize("count", [2, 3, layout.LEAST - 1])
def test_few_texts_are_laid_out_by_their_axes(count: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    places = layout.laid_out(vectors)
    assert np.isfinite(places).all()
    assert (places.max(axis=0) - places.min(axis=0)).max() == pytest.approx(1)
    # Alike in every respect: all in one place, and no division by nothing.
    assert (layout.laid_out(np.ones((count, 8), dtype=np.float32)) == 0.5).all()


def test_the_page_carries_all_of_it() -> None:
    found = mapped()
    text = page(found)
    data = data_of(text)
    assert data["texts"] == list(found.corpus.texts)
    assert data["ids"] == list(found.corpus.ids)
    np.testing.assert_allclose(cells(data["places"]).reshape(-1, 2) / 65535, found.places, atol=1e-5)
    cluster, number, kind = data["columns"]
    assert [cluster["values"][c] for c in cells(cluster["cells"])] == [found.name(i) for i in found.labels.tolist()]
    assert (number["low"], number["high"]) == (0, 59)
    np.testing.assert_allclose(cells(number["cells"]) / 65534 * 59, np.arange(60), atol=1e-3)
    assert [kind["values"][c] for c in cells(kind["cells"])] == ["<i>", "none", "plain"] * TIMES
    assert kind["sizes"] == [TIMES] * 3
    assert "<corpus>" not in text
    assert "<b>bold" not in text
    assert not re.search(r"https?://(?!apple|arxiv)", text.replace(data["texts"][0], "")), "nothing from elsewhere"


def test_of_a_file(tmp_path: Path, tiny_bert: EmbeddingModel) -> None:
    file = tmp_path / "texts.jsonl"
    rows = [{"id": i, "text": f"the wing {i}", "year": 1990 + i, "tags": ["a"]} for i in range(5)] + [
        {"text": "last", "id": 9}
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = of_file(reading.source(str(file), also=["year", "tags"]), tiny_bert, ["year", "tags"])
    assert found.ids == ["0", "1", "2", "3", "4", "9"]
    assert found.columns == {"year": [1990, 1991, 1992, 1993, 1994, None], "tags": ["['a']"] * 5 + [None]}
    np.testing.assert_array_equal(found.vectors, tiny_bert.encode_document(list(found.texts)))
    assert len(of_file(reading.source(str(file), also=["year"]), tiny_bert, ["year"], limit=3).texts) == 3
    with pytest.raises(ValueError, match="two at least"):
        of_file(reading.source(str(file)), tiny_bert, [], limit=1)


def test_what_no_page_and_no_parquet_can_hold_is_made_text_that_they_can(
    tmp_path: Path, tiny_bert: EmbeddingModel
) -> None:
    file = tmp_path / "texts.jsonl"
    rows = [{"id": f"d{i}\ud800", "text": f"the wing {i} \ud83d", "n": 2**63 - 1 + i, "w": "\ud83d"} for i in range(2)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = of_file(reading.source(str(file), also=["n", "w"]), tiny_bert, ["n", "w"])
    assert (found.ids[1], found.texts[1]) == ("d1\ufffd", "the wing 1 \ufffd")
    assert found.columns == {"n": [2**63 - 1, str(2**63)], "w": ["\ufffd"] * 2}


def test_of_an_index(tmp_path: Path, tiny_bert: EmbeddingModel) -> None:
    texts = [f"the wing {i}" for i in range(5)]
    with Index.create(tmp_path / "index", tiny_bert) as index:
        index.add([f"t{i}" for i in range(5)], texts, [{"year": i} if i else {} for i in range(5)])
        index.delete(["t3"])
        found = of_index(index, ["year"])
        assert list(found.texts) == [texts[i] for i in (0, 1, 2, 4)]
        assert found.columns == {"year": [None, 1, 2, 4]}
        np.testing.assert_allclose(found.vectors, tiny_bert.encode_document(list(found.texts)), atol=1e-6)
        assert of_index(index, None).columns == {}, "these texts have no path"
        with pytest.raises(ValueError, match=r"No text of .* has 'month'"):
            of_index(index, ["month"])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    import pyarrow.parquet as pq

    monkeypatch.setattr(layout, "require", lambda: None)
    file, out, table = tmp_path / "texts.jsonl", tmp_path / "map.html", tmp_path / "map.parquet"
    file.write_text(
        "".join(json.dumps({"text": f"a text {i}", "kind": i % 2, "cluster": "x"}) + "\n" for i in range(9))
    )
    arguments = ["map", str(file), "--model", str(DATA / "tiny-bert"), "--device", "cpu", "--column", "kind"]
    assert cli.main([*arguments, "--column", "cluster", "-o", str(out), "--parquet", str(table)]) == 0
    said = capsys.readouterr().out
    assert f"embedding-atlas {table} --text text --x projection_x --y projection_y" in said
    assert data_of(out.read_text())["columns"][1]["name"] == "kind"
    found = pq.read_table(table)
    assert found.column_names == ["id", "text", "kind", "cluster", "projection_x", "projection_y"]
    assert found["kind"].to_pylist() == [i % 2 for i in range(9)]
    assert found["text"].to_pylist() == [f"a text {i}" for i in range(9)]
    places = cells(data_of(out.read_text())["places"]).reshape(-1, 2) / 65535
    np.testing.assert_allclose(found["projection_x"].to_numpy(), places[:, 0], atol=1e-5)


def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("one\ntwo\n")
    assert cli.main(["map", str(file), "-o", str(tmp_path / "no/map.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    for option in ("-o", "--parquet"):
        assert cli.main(["map", str(file), option, str(file)]) == 2
        assert "is read or written already" in capsys.readouterr().err
    assert file.read_text() == "one\ntwo\n"
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one", "kind": 1}\n{"text": "two"}\n')
    model = ["--model", str(DATA / "tiny-bert"), "--device", "cpu", "-o", str(tmp_path / "map.html")]
    with monkeypatch.context() as patch:
        patch.setattr(layout, "require", lambda: None)
        assert cli.main(["map", str(rows), "--column", "kind", "--column", "knid", *model]) == 2
    assert "has 'knid'" in capsys.readouterr().err
    assert cli.main(["map", str(file), "--limit", "0"]) == 2
    monkeypatch.setitem(__import__("sys").modules, "pacmap", None)
    assert cli.main(["map", str(file), "-o", str(tmp_path / "map.html")]) == 2
    assert 'pip install ".[map]"' in capsys.readouterr().err
    monkeypatch.setattr(layout, "require", lambda: None)
    out = str(tmp_path / "map.html")
    assert cli.main(["map", str(file), "--format", "lines", "--column", "year", "-o", out]) == 2
    assert "A file of lines has no fields" in capsys.readouterr().err


def test_embedding_atlas_opens_it(tmp_path: Path) -> None:
    program = shutil.which("embedding-atlas")
    if program is None:
        pytest.skip("embedding-atlas is not installed")
    from mlx_embed.maps import parquet

    parquet.write(mapped(), tmp_path / "map.parquet")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # As the command prints it, and where it listens.
    arguments = parquet.command(tmp_path / "map.parquet").split()[1:]
    with subprocess.Popen(
        [program, *arguments, "--port", str(port), "--no-auto-port"], stdout=subprocess.DEVNULL
    ) as run:
        try:
            for _ in range(120):
                time.sleep(0.5)
                try:
                    address = f"http://127.0.0.1:{port}/data/metadata.json"
                    shown = json.load(urllib.request.urlopen(address, timeout=5))["props"]["data"]
                    break
                except OSError:
                    assert run.poll() is None, "it has ended"
        finally:
            run.terminate()
    assert shown["projection"] == {"x": "projection_x", "y": "projection_y"}
    assert shown["text"] == "text"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def lit(shown: Any) -> int:
    """Points that are drawn in full, as the canvas has them: pixels that are hardly transparent."""
    return int(
        shown.evaluate(
            """() => { const c = document.getElementById("map"), gl = c.getContext("webgl");
              const p = new Uint8Array(4 * c.width * c.height);
              gl.readPixels(0, 0, c.width, c.height, gl.RGBA, gl.UNSIGNED_BYTE, p);
              let n = 0; for (let i = 3; i < p.length; i += 4) n += p[i] > 150; return n; }"""
        )
    )


@pytest.mark.parametrize("width", [390, 1400])
def test_in_a_browser(width: int, browser: Any, tmp_path: Path) -> None:
    found = mapped()
    file = tmp_path / "map.html"
    file.write_text(page(found), encoding="utf-8")
    shown, complaints = opened(browser, file.as_uri(), width, "dark" if width == 390 else "light")
    shown.locator("body[data-points='60']").wait_for()
    shown.wait_for_timeout(100)
    all_lit = lit(shown)
    assert all_lit > 60, "the points are drawn"
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    # Each cluster's words stand on the map.
    labels = shown.locator("#labels div")
    assert sorted(labels.all_text_contents()) == sorted(", ".join(one[:2]) for one in found.words)
    # A search leaves only what it finds; a hit brings that text to the middle, where pointing at it tells what it is.
    shown.fill("#search", "NUMBER7 lift")
    shown.get_by_text("0 of 60 texts", exact=True).wait_for()
    shown.fill("#search", "lift")
    shown.get_by_text("20 of 60 texts", exact=True).wait_for()
    shown.wait_for_timeout(100)
    assert 0 < lit(shown) < all_lit
    shown.fill("#search", "bold")
    shown.get_by_text("1 of 60 texts", exact=True).wait_for()
    shown.locator("#hits button").click()
    shown.wait_for_timeout(100)
    assert shown.locator("#tip").text_content().startswith(found.corpus.texts[-1])
    shown.keyboard.press("Escape")
    shown.mouse.move(width / 2, 880)
    if width == 1400:
        shown.mouse.move(width / 2, 450)
        assert "t59" in shown.locator("#tip").text_content()
        assert "kind: plain" in shown.locator("#tip").text_content()
    # Colours by another column, and only one of its values.
    shown.fill("#search", "")
    shown.locator("#found:empty").wait_for(state="attached")
    shown.click("#all")
    shown.select_option("#colour", label="kind")
    assert shown.locator("#legend button").count() == 3
    shown.wait_for_timeout(100)
    before = lit(shown)
    shown.locator("#legend button").first.click()
    shown.wait_for_timeout(100)
    assert lit(shown) < before
    shown.select_option("#colour", label="number")
    assert shown.locator("#legend .ends").text_content() == "059"
    # Keys zoom.
    shown.locator("#map").focus()
    shown.keyboard.press("+")
    assert complaints.said == []
    assert [address for address in complaints.asked if not address.startswith(("data:", "blob:"))] == []
    shown.context.close()
