#!/usr/bin/env python3
"""Ask more of `mlx-embed serve` than it can do, and badly, for a long time; then kill it under load and start it again.

    python scripts/soak_serve.py [--minutes 10] [--model FOLDER] [--clients 96] [--concurrent 48]

Clients send queries, lists and large lists without a pause, twice as many as the server takes at once; among them are
some that go away before they are answered, and requests that are invalid or too large. Every vector is compared with
`encode`'s in this process. It exits with 1 where one differs by more than 1e-5, where an answer has another status
than 200 or the 4xx that it should have, where a request is not answered within a minute, where the server's memory
grows by more than 32 MiB over the last third, or where something still waits in it at the end. Then the server is
killed by SIGKILL while clients with retries ask, and started again on its port: none may lose anything.
"""

import argparse
import asyncio
import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
from base64 import b64decode
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from mlx_embed import EmbeddingModel  # noqa: E402

TOLERANCE = 1e-5
MARGIN = 32  # MiB
PATIENCE = 60  # seconds
STEP = 10  # seconds between two looks at the memory
RETRIES = 200
POOL = 3000
WORDS = ["the", "wing", "flow", "of", "heat", "code", "42", "!", "naïve", "日本", "speed", "boundary", "layer"]

# What becomes of a request: its share, and the statuses that it may have besides 429.
KINDS: dict[str, tuple[float, set[int]]] = {
    "query": (0.6, {200}),
    "list": (0.2, {200}),
    "large list": (0.02, {200}),
    "goes away": (0.08, set()),
    "empty text": (0.03, {400}),
    "no JSON": (0.03, {400}),
    "token ids": (0.02, {400}),
    "other model": (0.01, {404}),
    "too large": (0.01, {413}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--model", default=str(ROOT / "tests/data/tiny-bert"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clients", type=int, default=96)
    parser.add_argument("--concurrent", type=int, default=48)
    options = parser.parse_args()
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 30))) for _ in range(POOL)]
    vectors = EmbeddingModel.from_pretrained(options.model, device=options.device).encode(texts)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    limits = ["--max-concurrent", str(options.concurrent), "--max-waiting-tokens", "30000"]
    command = [sys.executable, "-m", "mlx_embed.cli", "serve", options.model, "--device", options.device]
    soak = Soak([*command, "--port", str(port), *limits], port, texts, vectors)
    soak.start()
    try:
        asyncio.run(soak.mixed(options.clients, options.minutes * 60))
        asyncio.run(soak.killed(options.clients // 4))
        soak.process.send_signal(signal.SIGTERM)
        if status := soak.process.wait(PATIENCE):
            soak.failures.append(f"The server ended with {status}.")
    finally:
        soak.process.kill()
    sys.exit("\n".join(soak.failures) or 0)


class Soak:
    """A server, and what its clients saw."""

    def __init__(self, command: list[str], port: int, texts: list[str], vectors: Any) -> None:
        self.command, self.port, self.texts, self.vectors = command, port, texts, vectors
        self.counts: Counter[tuple[str, int]] = Counter()
        self.compared = 0
        self.worst = 0.0
        self.failures: list[str] = []

    def start(self) -> None:
        """Start the server; what it is asked meanwhile waits or is refused."""
        self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=subprocess.DEVNULL)

    async def mixed(self, clients: int, seconds: float) -> None:
        """Clients that ask all kinds of things for so long, and the server's memory meanwhile."""
        await self.healthy()
        end = time.monotonic() + seconds
        asking = [asyncio.create_task(self.client(random.Random(n), end)) for n in range(clients)]
        memory: list[float] = []
        print(f"{'seconds':>8} {'memory MiB':>11} {'requests':>9} {'200':>9} {'429':>9} {'vectors':>9} {'worst':>9}")
        while time.monotonic() < end and not self.failures:
            await asyncio.sleep(STEP)
            memory.append(resident(self.process.pid))
            per = [sum(n for (_, status), n in self.counts.items() if status == wanted) for wanted in (200, 429)]
            shown = f"{sum(self.counts.values()):9} {per[0]:9} {per[1]:9} {self.compared:9} {self.worst:9.1e}"
            print(f"{seconds - end + time.monotonic():8.0f} {memory[-1]:11.1f} {shown}", flush=True)
        await asyncio.gather(*asking)
        for (kind, status), count in sorted(self.counts.items()):
            print(f"{kind:12} {status:4} {count:8}")
        if len(memory) >= 6:
            before = max(memory[: -(-2 * len(memory) // 3)])
            print(f"memory grew by {max(max(memory) - before, 0):.1f} MiB over the last third")
            if max(memory) - before > MARGIN:
                self.failures.append("The server's memory grew.")
        status, metrics = await self.ask("GET", "/metrics", b"")
        for name in ("te_queue_size", "mlx_embed_waiting_tokens", "mlx_embed_requests_running"):
            found = re.findall(rf"^{name}\S* (\S+)$", metrics.decode(), re.MULTILINE)
            if status != 200 or not found or any(float(value) for value in found):
                self.failures.append(f"{name} is {found} at the end.")

    async def client(self, rng: random.Random, end: float) -> None:
        """One client: a request after the other."""
        kinds, shares = list(KINDS), [share for share, _ in KINDS.values()]
        while time.monotonic() < end and not self.failures:
            kind = rng.choices(kinds, shares)[0]
            try:
                await asyncio.wait_for(self.one(kind, rng), PATIENCE)
            except asyncio.TimeoutError:
                self.failures.append(f"{kind}: no answer within {PATIENCE} s.")
            except (OSError, EOFError) as error:
                self.failures.append(f"{kind}: {error!r}.")

    async def one(self, kind: str, rng: random.Random) -> None:
        count = {"list": rng.randint(2, 40), "large list": 500, "goes away": rng.randint(1, 300)}.get(kind, 1)
        chosen = rng.choices(range(POOL), k=count)
        body: dict[str, Any] = {"input": [self.texts[i] for i in chosen], "encoding_format": "base64"}
        if kind == "empty text":
            body["input"].append("")
        if kind == "token ids":
            body["input"] = [[1, 2, 3]]
        if kind == "other model":
            body["model"] = "text-embedding-3-small"
        if kind == "too large":
            body["user"] = "x" * 9_000_000
        content = b'{"input": ' if kind == "no JSON" else json.dumps(body).encode()
        gone = rng.random() * 0.2 if kind == "goes away" else None
        status, answer = await self.ask("POST", "/v1/embeddings", content, gone)
        self.counts[kind, status] += 1
        if status == 200 and kind != "goes away":
            self.compare(chosen, answer)
        if kind != "goes away" and status != 429 and status not in KINDS[kind][1]:
            self.failures.append(f"{kind}: status {status}: {answer[:200]!r}.")

    def compare(self, chosen: list[int], answer: bytes) -> None:
        """Every vector with `encode`'s."""
        data = json.loads(answer)["data"]
        found = np.stack([np.frombuffer(b64decode(entry["embedding"]), dtype="<f4") for entry in data])
        difference = float(np.abs(found - self.vectors[chosen]).max())
        self.compared += len(chosen)
        self.worst = max(self.worst, difference)
        if not difference <= TOLERANCE:
            self.failures.append(f"A vector differs by {difference}.")

    async def ask(self, method: str, path: str, body: bytes, gone: float | None = None) -> tuple[int, bytes]:
        """One request on a connection of its own; with `gone`, leave after so many seconds: status 0."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**26)
        try:
            header = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            writer.write(f"{header}content-length: {len(body)}\r\n\r\n".encode() + body)
            if gone is not None:
                await asyncio.sleep(gone)
                return 0, b""
            answer = await reader.read()
            head, _, content = answer.partition(b"\r\n\r\n")
            if not head:
                raise EOFError("closed without an answer")
            length = re.search(rb"(?im)^content-length: *(\d+)", head)
            if length and len(content) < int(length[1]):
                raise EOFError("closed within an answer")
            return int(head.split(b" ", 2)[1]), content
        finally:
            writer.close()

    async def healthy(self) -> None:
        """Wait until the server is ready."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if (await self.ask("GET", "/health", b""))[0] == 200:
                    return
            except (OSError, EOFError):
                pass
            await asyncio.sleep(0.05)
        raise RuntimeError("The server does not get ready.")

    async def killed(self, clients: int) -> None:
        """Kill the server three times under load and start it again; clients try again until they are answered."""
        rng, answered, again = random.Random(1), 0, 0
        end = time.monotonic() + 15

        async def client(rng: random.Random) -> None:
            nonlocal answered, again
            while time.monotonic() < end:
                chosen = rng.choices(range(POOL), k=rng.choice([1, 1, 20]))
                body = json.dumps({"input": [self.texts[i] for i in chosen], "encoding_format": "base64"}).encode()
                for _ in range(RETRIES):
                    try:
                        status, answer = await asyncio.wait_for(self.ask("POST", "/v1/embeddings", body), PATIENCE)
                        if status == 200:
                            self.compare(chosen, answer)
                            answered += 1
                            break
                    except (OSError, EOFError):
                        pass
                    again += 1
                    await asyncio.sleep(0.1)
                else:
                    self.failures.append("A client with retries was not answered.")

        asking = [asyncio.create_task(client(random.Random(rng.random()))) for _ in range(clients)]
        for _ in range(3):
            await asyncio.sleep(3)
            self.process.kill()
            self.process.wait()
            self.start()
        await asyncio.gather(*asking)
        print(f"killed 3 times under load: {answered} requests answered, after {again} that were tried again")


def resident(pid: int) -> float:
    """A process's resident memory in MiB."""
    found = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(found.stdout) / 1024


if __name__ == "__main__":
    main()
