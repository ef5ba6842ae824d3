"""What a server takes on: too many requests, too large ones, too slow ones, and clients that go away."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.serve.limits import Limits
from mlx_embed.serve.models import Embedder
from tests.mlx_embed.serve.harness import SECONDS, Running, random_texts, serving, until

BODY = {"input": "the wing"}


@contextmanager
def held(running: Running) -> Iterator[threading.Event]:
    """The model computes nothing until the event is set, which leaving does."""
    gate = threading.Event()
    queue = running.service.models.find(None, Embedder).queue
    own = queue._begin

    def begin(key: Any, texts: Any) -> Any:
        gate.wait(SECONDS)
        return own(key, texts)

    queue._begin = begin
    try:
        yield gate
    finally:
        gate.set()
        queue._begin = own


def failures(running: Running, cause: str) -> float:
    lines = running.get("/metrics").text.splitlines()
    name = f'te_request_failure{{err="{cause}"}} '
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def connect(running: Running) -> socket.socket:
    host, port = running.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=SECONDS)


def test_too_many_requests(encoder: EmbeddingModel) -> None:
    with (
        serving({"tiny": encoder}, limits=Limits(concurrent=3)) as running,
        held(running) as gate,
        ThreadPoolExecutor(3) as pool,
    ):
        running_requests = [pool.submit(running.post, "/v1/embeddings", BODY) for _ in range(3)]
        until(lambda: running.service.places.taken == 3)
        for path, body in (("/v1/embeddings", BODY), ("/embed", {"inputs": "a"}), ("/api/embed", {"model": "tiny"})):
            answer = running.post(path, body)
            assert answer.status_code == 429
            assert 1 <= int(answer.headers["retry-after"]) <= 120
        assert running.get("/health").status_code == 200
        gate.set()
        assert [future.result().status_code for future in running_requests] == [200] * 3
        assert running.post("/v1/embeddings", BODY).status_code == 200
        assert failures(running, "overloaded") == 3


def test_too_many_waiting_tokens(encoder: EmbeddingModel) -> None:
    texts = random_texts(100, 30)
    limits = Limits(waiting_tokens=3000)
    with (
        serving({"tiny": encoder}, batch_tokens=100, limits=limits) as running,
        held(running) as gate,
        ThreadPoolExecutor(3) as pool,
    ):
        first = pool.submit(running.post, "/v1/embeddings", {"input": texts})
        queue = running.service.models.find(None).queue
        until(lambda: queue.jobs == 1 and not queue._unread)
        answer = running.post("/v1/embeddings", {"input": texts})
        assert answer.status_code == 429
        assert "tokens are waiting" in answer.json()["error"]["message"]
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        small = pool.submit(running.post, "/v1/embeddings", BODY)  # there is room for it behind the large one
        until(lambda: queue.jobs == 2)
        gate.set()
        assert small.result().status_code == first.result().status_code == 200


def test_a_body_that_is_too_large(encoder: EmbeddingModel) -> None:
    with serving({"tiny": encoder}, limits=Limits(body_bytes=1000)) as running:
        body = json.dumps({"input": "a" * 2000}).encode()
        for path, shape in (("/v1/embeddings", "openai"), ("/embed", "tei")):
            answer = httpx.post(running.url + path, content=body)
            assert answer.status_code == 413
            assert "1000 bytes" in answer.text, shape

        def parts() -> Iterator[bytes]:
            for start in range(0, len(body), 100):
                yield body[start : start + 100]

        assert httpx.post(running.url + "/embed", content=parts()).status_code == 413
        fits = json.dumps({"inputs": "a" * 900}).encode()
        assert httpx.post(running.url + "/embed", content=fits).status_code == 200


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["gzip"], "gzip"),
        (["br, identity"], "br"),
        (["identity", "Deflate"], "Deflate"),
        ([""], None),
        (["Identity"], None),
    ],
)
def test_a_body_that_is_packed(given: list[str], named: str | None, running: Running) -> None:
    body = json.dumps({"input": "a", "inputs": "a"}).encode()
    headers = [("Content-Encoding", one) for one in given]
    for path in ("/v1/embeddings", "/embed"):
        answer = httpx.post(running.url + path, content=body if named is None else gzip.compress(body), headers=headers)
        assert answer.status_code == (200 if named is None else 415)
        if named is not None:
            assert f"The body has the Content-Encoding {named}, and this server unpacks none" in answer.text
            assert answer.headers["accept-encoding"] == "identity"


def test_a_large_body_is_refused_before_it_is_read(running: Running) -> None:
    with connect(running) as client:
        client.sendall(b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n{")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("overloaded", [False, True])
def test_a_client_that_closes_after_its_request_sees_why_it_is_refused(
    encoder: EmbeddingModel, overloaded: bool
) -> None:
    size = 20_000_000
    head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
    with serving({"tiny": encoder}, limits=Limits(concurrent=0 if overloaded else 9)) as running:
        with connect(running) as client:
            client.sendall(head + b" " * size)
            assert client.recv(100).startswith(b"HTTP/1.1 429 " if overloaded else b"HTTP/1.1 413 ")
            while client.recv(1000):
                pass
        assert running.get("/health").status_code == 200


def test_many_large_bodies_at_once(encoder: EmbeddingModel) -> None:
    with (
        serving({"tiny": encoder}, limits=Limits(held_bytes=1000)) as running,
        held(running) as gate,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(running.post, "/v1/embeddings", {"input": "a" * 700})
        until(lambda: running.service.places.held > 700)
        assert running.post("/v1/embeddings", {"input": "a" * 700}).status_code == 429
        gate.set()
        assert first.result().status_code == 200
        assert running.service.places.held == 0


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /em", b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"],
    ids=["nothing", "half a header", "half a body"],
)
def test_a_request_that_does_not_arrive(encoder: EmbeddingModel, sent: bytes) -> None:
    with serving({"tiny": encoder}, limits=Limits(read_seconds=0.2)) as running, connect(running) as client:
        client.sendall(sent)
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert client.recv(1000) == b""
        until(lambda: running.service.places.taken == 0)


def test_a_connection_is_kept_longer_than_a_request_may_take_to_arrive(encoder: EmbeddingModel) -> None:
    limits = Limits(read_seconds=0.2, idle_seconds=1)
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving({"tiny": encoder}, limits=limits) as running, connect(running) as client:
        for _ in range(2):
            client.sendall(request)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.4)
        assert client.recv(1000) == b""  # idle for a second


def test_a_header_without_end(running: Running) -> None:
    with connect(running) as client:
        client.sendall(b"POST /embed HTTP/1.1\r\n")
        for number in range(7):
            client.sendall(b"X-%d: %s\r\n" % (number, b"a" * 10_000))
        assert client.recv(1000).startswith(b"HTTP/1.1 431 ")


def test_a_request_that_takes_too_long(encoder: EmbeddingModel) -> None:
    with serving({"tiny": encoder}, limits=Limits(seconds=0.2)) as running, held(running) as gate:
        running_first = running.post("/v1/embeddings", BODY)
        waiting = running.post("/v1/embeddings", BODY)
        for answer in (running_first, waiting):
            assert answer.status_code == 503
            assert "0.2 seconds" in answer.json()["error"]["message"]
        gate.set()
        until(lambda: running.service.models.find(None).queue.jobs == 0)
        assert running.post("/v1/embeddings", BODY).status_code == 200


def test_a_client_that_goes_away_frees_its_place(encoder: EmbeddingModel) -> None:
    body = json.dumps({"inputs": random_texts(50, 20)}).encode()
    request = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with serving({"tiny": encoder}, batch_tokens=100) as running, held(running) as gate:
        queue = running.service.models.find(None).queue
        clients = [connect(running) for _ in range(4)]
        for client in clients:
            client.sendall(request + body)
        until(lambda: queue.jobs == 4)
        for client in clients[:3]:
            client.close()
        until(lambda: queue.jobs == 1 and running.service.places.taken == 1)
        gate.set()
        assert clients[3].recv(100).startswith(b"HTTP/1.1 200 ")
        clients[3].close()
        assert queue.waiting == 0
        assert failures(running, "client_gone") == 3


def test_a_client_that_goes_away_while_it_sends(running: Running) -> None:
    before = failures(running, "client_gone")
    with connect(running) as client:
        client.sendall(b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        until(lambda: running.service.places.taken == 1)
    until(lambda: running.service.places.taken == 0)
    assert failures(running, "client_gone") == before + 1


def test_too_many_vectors_of_tokens(encoder: EmbeddingModel) -> None:
    """What is answered of a body that is within its limit could be hundreds of times as large."""
    long = "the wing " * encoder.max_seq_length
    room = 2 * encoder.max_seq_length * 32
    with serving({"tiny": encoder}, limits=Limits(numbers=room)) as running:
        assert len(running.post("/embed_all", {"inputs": [long] * 2}).json()) == 2
        found = running.post("/embed_all", {"inputs": [long, "wing", long]})
        assert (found.status_code, found.json()["error"]) == (
            413,
            "The texts have more than 128 tokens together, and this server answers no more with a vector of 32 numbers "
            "each: send fewer texts at a time.",
        )
        assert running.post("/embed", {"inputs": [long] * 9}).status_code == 200
        assert running.service.models.find(None).queue.waiting == 0
    with serving({"tiny": encoder}, limits=Limits(numbers=1)) as running:  # of one text
        assert len(running.post("/embed_all", {"inputs": long}).json()[0]) == encoder.max_seq_length
