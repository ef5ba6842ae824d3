"""The page at `/`: who gets it, what it may ask, and that a browser watches a server and ranks texts by it."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel
from mlx_embed.serve.access import Access
from tests.mlx_embed.pages.browser import chromium, opened
from tests.mlx_embed.serve.harness import Running, serving

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
TEXTS = ["the wing of speed", "heat of the flow", "code 42", "naïve <b>wing</b>"]


def test_a_browser_gets_the_page_and_a_client_the_health(running: Running) -> None:
    answer = running.get("/", headers=BROWSER)
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text.startswith("<!doctype html>")
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        assert running.get("/", headers=headers).json() == {"status": "ok"}
    assert running.get("/health", headers=BROWSER).json() == {"status": "ok"}


def test_it_asks_its_own_server_alone(running: Running) -> None:
    answer = running.get("/", headers=BROWSER)
    assert "default-src 'none'" in answer.text
    assert "connect-src 'self'" in answer.text
    assert answer.headers["x-frame-options"] == "DENY"
    assert "http://" not in answer.text
    assert "https://" not in answer.text


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_page_of_the_same_origin_may_ask(running: Running, scheme: str) -> None:
    host = running.url.removeprefix("http://")
    port = host.rpartition(":")[2]
    body = {"input": "the wing"}
    assert running.post("/v1/embeddings", body, headers={"Origin": f"{scheme}://{host}"}).status_code == 200
    for origin in (
        f"http://localhost:{port}",
        "http://127.0.0.1",
        f"http://{host}.evil.example",
        f"http://evil@{host}",
    ):
        assert running.post("/v1/embeddings", body, headers={"Origin": origin}).status_code == 403, origin
    # Another name for the host that the page's origin repeats does not help.
    headers = {"Origin": "http://evil.example", "Host": "evil.example"}
    assert running.post("/v1/embeddings", body, headers=headers).status_code == 403
    assert running.get("/", headers={**BROWSER, "Host": "evil.example"}).status_code == 403


def test_the_page_needs_no_key_and_what_it_asks_for_does(encoder: EmbeddingModel) -> None:
    with serving({"tiny": encoder}, access=Access(keys=("secret",))) as running:
        assert running.get("/", headers=BROWSER).status_code == 200
        assert running.get("/").status_code == 401
        assert running.get("/metrics", headers=BROWSER).status_code == 401
        assert httpx.post(running.url + "/", json={"inputs": "a"}, headers=BROWSER).status_code == 401


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("width", [390, 1400])
def test_in_a_browser(
    width: int, browser: Any, running: Running, encoder: EmbeddingModel, cross_encoder: CrossEncoder
) -> None:
    shown, complaints = opened(browser, running.url + "/", width, "dark" if width == 390 else "light")
    shown.get_by_text("Serving org/Tiny-BERT, tiny-reranker.").wait_for()
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    shown.fill("#given", "\n\n".join(TEXTS))
    shown.fill("#query", "wing")
    shown.click("#try button")
    shown.locator("#ranked li").nth(3).wait_for()
    expected = encoder.similarity(encoder.encode_query("wing"), encoder.encode_document(TEXTS))[0]
    order = np.argsort(-expected).tolist()
    assert shown.locator("#ranked li").all_text_contents() == [f"{expected[i]:.4f}{TEXTS[i]}" for i in order]
    shown.select_option("#model", "tiny-reranker")
    shown.click("#try button")
    shown.get_by_text("4 texts by relevance").wait_for()
    best = cross_encoder.rank("wing", TEXTS)[0]
    assert shown.locator("#ranked li").first.text_content().endswith(TEXTS[best["corpus_id"]])
    # What it has asked for is counted, and shown at the next look.
    shown.locator("#count", has_text="3").wait_for()
    assert shown.locator("#p50").text_content() != "–"
    shown.fill("#query", " ")
    shown.click("#try button")
    shown.get_by_text("It needs a query, and one text at least.").wait_for()
    assert all(address.startswith((running.url, "data:")) for address in complaints.asked)
    # The reranker's name is first taken for an embedding model's: the browser writes that 404 into its console.
    assert [line for line in complaints.said if "404" not in line] == []
    shown.context.close()


def test_a_key_is_asked_for(browser: Any, encoder: EmbeddingModel) -> None:
    with serving({"tiny": encoder}, access=Access(keys=("secret",))) as running:
        shown, _ = opened(browser, running.url + "/", 1400)
        shown.locator("#key").fill("secret")
        shown.get_by_text("Serving tiny.").wait_for()
        shown.context.close()
