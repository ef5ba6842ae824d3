#!/usr/bin/env python3
"""Load `mlx-embed serve` over loopback, beside `encode` in process, itself without batching, and a plain server.

    python scripts/bench_serve.py [--model FOLDER] [--clients 1 8 64 256] [--longest 256 16] [--texts 512] [--peer]
    python scripts/bench_serve.py --quick --device gpu --dtype float16 --texts 4096    # in about a minute

A closed loop: each client sends one text of 8 to 256 tokens, waits for its vector, and sends the next, until all texts
are done; then the same with texts of 8 to 16 tokens, as queries are. Every side gets the same texts, the sides take
turns, and ratios are of one round, their median over rounds. The server is beside itself with batching off, and beside
`encode` of all texts as one list and one after the other: how much faster the one is than the other bounds what
batching can bring on this machine. `--peer` adds sentence-transformers behind Starlette and a thread pool, the way it
is usually served (another framework's cost is of no matter beside the model's). Then one client and one short query, in
turns with `encode` of it in this process. All is on one machine, the load generator too: its share of the processors is
part of the figures, and so is whatever else runs, for which the load average is printed.

It needs the extra serve: starlette, uvicorn, httptools, msgspec, orjson and prometheus-client (uvloop, if it is there).
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

START_SECONDS = 120
NEEDED = ("starlette", "uvicorn", "httptools", "msgspec", "orjson", "prometheus_client")
PEER = "sentence_transformers"
QUERY = "how fast is sound in dry air"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("MLX_EMBED_TEST_MODEL", str(ROOT / "tests/data/tiny-bert")))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", help="to compute in, here and in the server")
    parser.add_argument("--quick", action="store_true", help="64 clients and 2 rounds alone")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--longest", type=int, nargs="+", default=[256, 16], help="tokens, about; a load each")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, help="of the server; its default without")
    parser.add_argument("--peer", action="store_true", help="sentence-transformers behind a plain server too")
    parser.add_argument("--serve-peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_peer:
        serve_peer(options.model)
        return

    if absent := [name for name in NEEDED if find_spec(name) is None]:
        sys.exit(f"left out altogether, for want of {', '.join(absent)}")
    if options.quick:
        options.clients, options.rounds = [64], 2

    from mlx_embed import EmbeddingModel

    model = EmbeddingModel.from_pretrained(options.model, device=options.device, dtype=options.dtype)
    print(f"{model}\n{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    serve = [sys.executable, "-m", "mlx_embed.cli", "serve", options.model, "--port", "0", "--device", options.device]
    serve += [] if options.dtype is None else ["--dtype", options.dtype]
    budget = [] if options.batch_tokens is None else ["--max-batch-tokens", str(options.batch_tokens)]
    commands = {"serve": serve + budget, "one at a time": [*serve, "--max-batch-tokens", "1"]}
    if options.peer and find_spec(PEER) is None:
        print(f"left out: peer, for want of {PEER}")
    elif options.peer:
        commands["peer"] = [sys.executable, __file__, "--serve-peer", "--model", options.model]
    servers: list[subprocess.Popen[str]] = []
    try:
        urls = {}
        for name, command in commands.items():
            process, urls[name] = started(command)
            servers.append(process)
        for longest in options.longest:
            texts = make_texts(options.texts, longest)
            tokens = int(model.token_counts(texts).sum())
            print(f"\n{options.texts} texts of 8 to {longest} tokens, {tokens} altogether")
            for count in options.clients:
                throughput(count, texts, urls, model.encode, options.rounds)
        print()
        one_query(urls["serve"], model.encode, options.queries)
        starts(commands["serve"], options.rounds)
    finally:
        for process in servers:
            process.terminate()
            process.wait()
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


def make_texts(count: int, longest: int) -> list[str]:
    """Texts of 8 to so many tokens, short ones more often."""
    rng = random.Random(0)
    words = ["sound", "wing", "boundary", "of", "the", "layer", "heat", "transfer", "at", "supersonic", "speed", "in"]
    found = []
    for _ in range(count):
        length = round(8 * (longest / 8) ** rng.random())
        found.append(" ".join(rng.choices(words, k=max(length - 2, 1))))
    return found


def started(command: Sequence[str]) -> tuple["subprocess.Popen[str]", str]:
    """A server, once it is ready, and its address."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    end = time.monotonic() + START_SECONDS
    while asyncio.run(status_of(url, "/health")) != 200:
        if time.monotonic() > end or process.poll() is not None:
            raise RuntimeError(f"{' '.join(command)} does not answer.")
        time.sleep(0.05)
    return process, url


async def status_of(url: str, path: str) -> int:
    try:
        client = await Client.connect(url)
        status, _ = await client.request(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        client.writer.close()
        return status
    except OSError:
        return 0


class Client:
    """A connection that is kept: as little of a client as there can be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, url: str) -> "Client":
        host, port = url.removeprefix("http://").split(":")
        return cls(*await asyncio.open_connection(host, int(port), limit=2**24))

    async def request(self, request: bytes) -> tuple[int, bytes]:
        self.writer.write(request)
        header = await self.reader.readuntil(b"\r\n\r\n")
        length = int(header.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(header.split(b" ", 2)[1]), await self.reader.readexactly(length)


def request_of(text: str, encoding: str) -> bytes:
    body = json.dumps({"input": text, "model": "default", "encoding_format": encoding}).encode()
    return b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body


async def closed_loop(url: str, requests: Sequence[bytes], clients: int) -> tuple[float, list[float]]:
    """Seconds for all requests, and of each."""
    waiting = iter(requests)
    times: list[float] = []

    async def run() -> None:
        client = await Client.connect(url)
        for request in waiting:
            start = time.perf_counter()
            status, body = await client.request(request)
            times.append(time.perf_counter() - start)
            assert status == 200, body[:200]
        client.writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(clients)))
    return time.perf_counter() - start, times


def throughput(
    clients: int, texts: Sequence[str], urls: dict[str, str], encode: Callable[..., object], rounds: int
) -> None:
    """Texts a second of all sides, one after the other, in each round."""
    sides = {
        f"{name}, {encoding}": (url, [request_of(text, encoding) for text in texts])
        for name, url in urls.items()
        for encoding in (("base64", "float") if name == "serve" else ("base64",))
    }
    here = {"encode, one list": lambda: encode(list(texts)), "encode, one by one": lambda: [encode(t) for t in texts]}
    rates: dict[str, list[float]] = {name: [] for name in [*here, *sides]}
    latencies: dict[str, list[float]] = {name: [] for name in rates}
    for turn in range(rounds + 1):
        for name in list(rates):
            if name in sides:
                seconds, times = asyncio.run(closed_loop(*sides[name], clients))
            else:
                start = time.perf_counter()
                here[name]()
                seconds, times = time.perf_counter() - start, [0.0]
            if turn:  # the first round warms up
                rates[name].append(len(texts) / seconds)
                latencies[name] += times
    print(f"{clients} clients, load {os.getloadavg()[0]:.1f}")
    base = rates["serve, base64"]
    for name, found in rates.items():
        ratio = statistics.median(mine / other for mine, other in zip(base, found, strict=True))
        times = sorted(latencies[name])
        spread = f"  {min(found):.0f}..{max(found):.0f}"
        shown = (
            ""
            if times[-1] == 0
            else f"  p50 {1000 * quantile(times, 0.5):.1f} ms  p99 {1000 * quantile(times, 0.99):.1f} ms"
        )
        print(f"  {name:22} {statistics.median(found):8.1f} texts/s{spread:14}  serve/this {ratio:5.2f}{shown}")


def one_query(url: str, encode: Callable[..., object], count: int) -> None:
    """A query through the server, in turns with `encode` of it here."""
    request = request_of(QUERY, "base64")

    async def turns() -> tuple[list[float], list[float]]:
        client = await Client.connect(url)
        served, here = [], []
        for _ in range(count):
            start = time.perf_counter()
            await client.request(request)
            served.append(time.perf_counter() - start)
            start = time.perf_counter()
            encode(QUERY)
            here.append(time.perf_counter() - start)
        return served[count // 10 :], here[count // 10 :]

    served, here = map(sorted, asyncio.run(turns()))
    print(f"one query, {count} turns, load {os.getloadavg()[0]:.1f}")
    for name, times in (("encode", here), ("serve", served)):
        print(f"  {name:8} p50 {1000 * quantile(times, 0.5):.2f} ms  p99 {1000 * quantile(times, 0.99):.2f} ms")
    print(f"  above encode, median: {1000 * (quantile(served, 0.5) - quantile(here, 0.5)):.2f} ms")


def starts(command: Sequence[str], rounds: int) -> None:
    """Seconds from starting a server to the answer of its first query, asked again and again until it is there."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        process, url = started(command)
        asyncio.run(closed_loop(url, [request_of(QUERY, "base64")], 1))
        found.append(time.perf_counter() - start)
        process.terminate()
        process.wait()
    print(f"first answer after {min(found):.2f}..{max(found):.2f} s, load {os.getloadavg()[0]:.1f}")


def quantile(times: Sequence[float], share: float) -> float:
    return times[min(int(share * len(times)), len(times) - 1)]


def serve_peer(folder: str) -> None:
    """sentence-transformers behind Starlette, a call a request, in its thread pool."""
    import socket

    import numpy as np
    import uvicorn
    from sentence_transformers import SentenceTransformer
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from mlx_embed.serve.replies import base64_of

    model = SentenceTransformer(folder, device="cpu")

    async def embeddings(request: Request) -> JSONResponse:
        body = await request.json()
        vectors = await run_in_threadpool(model.encode, [body["input"]], show_progress_bar=False)
        data = [{"index": i, "embedding": base64_of(np.asarray(vector))} for i, vector in enumerate(vectors)]
        return JSONResponse({"data": data})

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({})

    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    app = Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"]), Route("/health", health)])
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
