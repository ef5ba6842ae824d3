"""`mlx-embed encode --server` against `encode` in this process, and servers that are not what they should be."""

import json
import re
import shutil
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import BGEM3, EmbeddingModel, MLXEmbedError, MultiVectorEncoder, SparseEncoder, cli
from mlx_embed.encode_files import dense
from mlx_embed.serve import client
from mlx_embed.serve.access import Access
from mlx_embed.serve.client import connect
from mlx_embed.serve.models import state_of
from tests.bge_m3 import make as make_m3
from tests.mlx_embed.serve.harness import Running, random_texts, serving
from tests.multi_vector import make as make_multi_vector
from tests.sparse import make as make_sparse

TOLERANCE = 1e-5
TEXTS = [*random_texts(40, 30, seed=3), "", "the wing " * 60, "naïve \ud800 surrogate"]


def file_of(folder: Path, texts: list[str]) -> Path:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def encoded(folder: Path, texts: list[str], *arguments: str) -> np.ndarray:
    out = folder / "out.npy"
    assert cli.main(["encode", str(file_of(folder, texts)), "-o", str(out), *arguments]) == 0
    return np.load(out)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], {}),
        (["--prompt-name", "query"], {"prompt_name": "query"}),
        (["--truncate-dim", "8"], {"truncate_dim": 8}),
        (["--model", "tiny-bert"], {}),
    ],
)
def test_vectors(
    running: Running, encoder: EmbeddingModel, tmp_path: Path, arguments: list[str], options: dict[str, Any]
) -> None:
    found = encoded(tmp_path, TEXTS, "--server", running.url, *arguments)
    expected = encoder.encode(TEXTS, **options)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= TOLERANCE


def test_many_requests(running: Running, encoder: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TEXTS", 7)
    monkeypatch.setattr(client, "CHARACTERS", 700)
    sizes = [len(part) for part in client._parts(TEXTS, 700)]
    assert max(sizes) == 7
    assert min(sizes) < 7
    vectors, info = connect(running.url).encode(TEXTS)
    expected, told = encoder.encode(TEXTS, return_info=True)
    assert np.abs(vectors - expected).max() <= TOLERANCE
    assert (info.token_counts == told.token_counts).all()
    assert (info.truncated == told.truncated).all()
    assert info.truncated.sum() == 1


def test_what_is_said(running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoded(tmp_path, TEXTS, "--server", running.url)
    said = capsys.readouterr().err
    assert "1 of 43 texts are longer than the model's 64 tokens" in said
    assert "with 122 tokens" in said
    assert "No prompt was put before the texts; the model has query, passage" in said
    assert "43 texts" in said
    assert "by org/Tiny-BERT" in said


def test_the_server_of_the_environment(
    running: Running, encoder: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLX_EMBED_SERVER", running.url)
    monkeypatch.setattr(EmbeddingModel, "from_pretrained", None)
    assert np.abs(encoded(tmp_path, ["wing"]) - encoder.encode(["wing"])).max() <= TOLERANCE


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, dict[str, str]]]:
    """A server of a sparse model, one of a vector a token, and BGE-M3; and their folders."""
    made = {name: tmp_path_factory.mktemp(name) / "model" for name in ("splade", "colbert", "m3")}
    folders = {
        "splade": make_sparse(made["splade"], "queries looked up"),
        "colbert": make_multi_vector(made["colbert"], "sentence-transformers"),
    }
    folders["m3"] = make_m3(made["m3"], 20)
    others = {
        "splade": SparseEncoder.from_pretrained(folders["splade"], device="cpu"),
        "colbert": MultiVectorEncoder.from_pretrained(folders["colbert"], device="cpu"),
        "m3": BGEM3.from_pretrained(folders["m3"], device="cpu"),
    }
    with serving({}, {}, others) as running:
        yield running, {name: str(folder) for name, folder in folders.items()}


@pytest.mark.parametrize("task", ["query", "document"])
@pytest.mark.parametrize(
    ("kind", "name"), [("sparse", "splade"), ("sparse", "m3"), ("multi-vector", "colbert"), ("multi-vector", "m3")]
)
def test_other_kinds(
    kinds: tuple[Running, dict[str, str]],
    kind: str,
    name: str,
    task: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(client, "TEXTS", 7)
    path, (running, folders) = str(file_of(tmp_path, TEXTS)), kinds
    command = ["encode", path, f"--{kind}", "--task", task, "-o"]
    assert cli.main([*command, str(tmp_path / "own.npz"), "--model", folders[name], "--device", "cpu"]) == 0
    assert cli.main([*command, str(tmp_path / "out.npz"), "--model", name, "--server", running.url]) == 0
    ours, servers = (line for line in capsys.readouterr().err.splitlines() if " tokens, by " in line)
    assert ours.partition(" by ")[0] == servers.partition(" by ")[0]
    with np.load(tmp_path / "own.npz") as own, np.load(tmp_path / "out.npz") as found:
        assert set(own) == set(found)
        for array in set(own) - {"format"}:
            assert found[array] == pytest.approx(own[array], abs=TOLERANCE)


def test_other_kinds_go_on(
    kinds: tuple[Running, dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(dense, "PART", 8)
    path, ask = str(file_of(tmp_path, TEXTS)), client._asked
    calls: list[int] = []
    command = ["encode", path, "--sparse", "--server", kinds[0].url, "-o"]
    assert cli.main([*command, str(tmp_path / "whole.npz")]) == 0

    def fail(url: str, key: str | None, body: dict[str, Any]) -> dict[str, Any]:
        calls.append(len(body["texts"]))
        if len(calls) == 5:
            raise MLXEmbedError("The server has gone.")
        return ask(url, key, body)

    monkeypatch.setattr(client, "_asked", fail)
    assert cli.main([*command, str(tmp_path / "out.npz")]) == 2
    assert "16 texts are done and kept" in capsys.readouterr().err
    monkeypatch.setattr(client, "_asked", ask)
    assert cli.main([*command, str(tmp_path / "out.npz"), "--resume"]) == 0
    assert (tmp_path / "out.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_the_state_of_a_model_is_of_what_it_computes(encoder: EmbeddingModel, tmp_path: Path) -> None:
    place = shutil.copytree(encoder.checkpoint.folder, tmp_path / "copied", copy_function=shutil.copyfile)
    loaded = EmbeddingModel.from_pretrained(place, device="cpu")
    assert state_of(loaded) == state_of(encoder)
    assert state_of(EmbeddingModel.from_pretrained(place, device="cpu", engine="reference")) == state_of(encoder)
    half = EmbeddingModel.from_pretrained(place, device="cpu", engine="reference", dtype="float16")
    assert state_of(half) != state_of(encoder)
    (place / ".out.npy.json").write_text("{}")  # what an interrupted run leaves is not the model's
    for file, byte in (("model.safetensors", -1), ("tokenizer.json", 2000), ("1_Pooling/config.json", 30)):
        data = bytearray((place / file).read_bytes())
        data[byte] ^= 1
        (place / file).write_bytes(data)
        assert state_of(loaded) != state_of(encoder)
        data[byte] ^= 1
        (place / file).write_bytes(data)
    hub = place / ".cache" / "huggingface" / "download"  # where its client keeps the time of a download
    hub.mkdir(parents=True)
    (hub / "model.safetensors.metadata").write_text("1")
    assert state_of(loaded) == state_of(encoder)


def test_going_on(
    running: Running,
    encoder: EmbeddingModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(dense, "PART", 8)
    path, out, calls = file_of(tmp_path, TEXTS), tmp_path / "out.npy", []
    ask = client._asked

    def fail(url: str, key: str | None, body: dict[str, Any]) -> dict[str, Any]:
        calls.append(len(body["texts"]))
        if len(calls) == 5:
            raise MLXEmbedError("gone")
        return ask(url, key, body)

    monkeypatch.setattr(client, "_asked", fail)
    arguments = ["encode", str(path), "-o", str(out), "--server", running.url]
    assert cli.main(arguments) == 2
    assert not out.exists()
    with monkeypatch.context() as patch:
        patch.setattr(running.service.models.loaded["org/Tiny-BERT"], "state", "of another model")
        assert cli.main([*arguments, "--resume"]) == 2
    assert "was begun with another state of the server's model" in capsys.readouterr().err
    del calls[5:]
    assert cli.main([*arguments, "--resume"]) == 0
    assert calls == [0, 0, 8, 8, 8, 0, 0, 8, 8, 8, 3]
    assert np.abs(np.load(out) - encoder.encode(TEXTS)).max() <= TOLERANCE


def test_a_key(encoder: EmbeddingModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_text("# mine\nsecret\n")
    with serving({"tiny": encoder}, access=Access(("secret",))) as server:
        found = encoded(tmp_path, ["wing"], "--server", server.url, "--api-key-file", str(tmp_path / "key"))
        assert np.abs(found - encoder.encode(["wing"])).max() <= TOLERANCE
        assert cli.main(["encode", str(file_of(tmp_path, ["a"])), "--server", server.url]) == 2
        assert "This server wants a key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "other"], "model 'other' not found: the embedding models served here are org/Tiny-BERT"),
        (["--dtype", "float16"], "--dtype is what the server at .* was started with"),
        (["--device", "cpu"], "--device is what the server"),
        (["--long-text", "mean_of_chunks"], "needs the model here"),
        (["--prompt-name", "other"], "prompt_name 'other' is not among the model's: "),
        (["--truncate-dim", "99"], r"truncate_dim 99 is not within 1\.\.32"),
    ],
)
def test_what_a_server_cannot_do(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    path = file_of(tmp_path, ["a"])
    assert cli.main(["encode", str(path), "-o", str(tmp_path / "out.npy"), "--server", running.url, *arguments]) == 2
    found = capsys.readouterr().err
    assert re.search(message, found), found
    assert not (tmp_path / "out.npy").exists()


def test_too_many_texts(running: Running) -> None:
    answer = running.post("/v1/encode", {"texts": ["a"] * 2049})
    assert answer.status_code == 400
    assert "texts has 2049" in answer.json()["error"]["message"]


@contextmanager
def answering(answer: Callable[[int, dict[str, Any]], tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
    """A server of whatever `answer` gives of how many requests came before, and the body: status, headers, content."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, headers, content = answer(len(requests), body)
            requests.append(body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # how often it looks whether it shall end
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def model_of(vectors: str, counts: list[int], **more: Any) -> bytes:
    facts = {"model": "m", "state": "s", "dimension": 2, "max_tokens": 64, "prompts": {}, "default_prompt_name": None}
    return json.dumps(facts | {"vectors": vectors, "token_counts": counts} | more).encode()


ONE = "AACAPwAAAAA="  # [1, 0]


def test_a_server_without_room_is_asked_again() -> None:
    def answer(before: int, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        if before % 2 == 0:
            return (429, {"retry-after": "0"}, b"") if before else (503, {}, b'{"error": {"message": "loading"}}')
        return 200, {}, model_of(ONE * len(body["texts"]), [3] * len(body["texts"]))

    with answering(answer) as url:
        vectors, info = connect(url).encode(["a"])
    assert vectors.tolist() == [[1, 0]]
    assert info.token_counts.tolist() == [3]


def test_what_is_not_done_in_the_servers_time_is_asked_in_parts() -> None:
    def answer(before: int, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        texts = body["texts"]
        if len(texts) > 2:
            return 503, {"retry-after": "120"}, b'{"error": {"message": "not done in time", "code": "timeout"}}'
        vectors = np.array([[float(text), 0] for text in texts], dtype="<f4")
        return 200, {}, model_of(b64encode(vectors).decode(), [int(text) for text in texts])

    with answering(answer) as url:
        vectors, info = connect(url).encode([str(number) for number in range(7)])
    assert vectors.tolist() == [[number, 0] for number in range(7)]
    assert info.token_counts.tolist() == list(range(7))


def test_a_text_that_is_never_done_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0)
    late = b'{"error": {"message": "not done in time", "code": "timeout"}}'

    def answer(before: int, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return (503, {}, late) if body["texts"] else (200, {}, model_of("", []))

    with answering(answer) as url, pytest.raises(MLXEmbedError, match="refuses: not done in time"):
        connect(url).encode(["a", "b"])


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0)
    refusal = b'{"error": {"message": "The models are being loaded."}}'
    with (
        answering(lambda before, body: (503, {}, refusal)) as url,
        pytest.raises(MLXEmbedError, match=r"refuses: The models are being loaded\."),
    ):
        connect(url)


@pytest.mark.parametrize(
    ("status", "content"),
    [(404, b"not found"), (404, b"[]"), (404, b'{"error": "no"}'), (200, b"ok"), (200, b"{}"), (200, b"[]")],
)
def test_something_else_answers(status: int, content: bytes) -> None:
    with (
        answering(lambda before, body: (status, {}, content)) as url,
        pytest.raises(MLXEmbedError, match="is no `mlx-embed serve` of this version"),
    ):
        connect(url)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (model_of("AACAPw==", [3]), "is no `mlx-embed serve`"),
        (model_of("?", [3]), "is no `mlx-embed serve`"),
        (model_of(ONE, []), "vectors that are not of the texts"),
        (model_of("AADAfwAAAAA=", [3]), "vectors that are not of the texts"),
        (model_of(ONE, [3], max_tokens=128), "has another model than before under 'm'"),
        (model_of(ONE, [3], state="t"), "has another model than before under 'm'"),
    ],
)
def test_vectors_that_are_not_what_was_asked_for(content: bytes, message: str) -> None:
    with answering(lambda before, body: (200, {}, content if body["texts"] else model_of("", []))) as url:
        model = connect(url)
        with pytest.raises(MLXEmbedError, match=message):
            model.encode(["a"])


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://a", "http://", "x"])
def test_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL"):
        connect(url)


def test_nobody_answers() -> None:
    with answering(lambda before, body: (200, {}, b"")) as url:
        pass
    with pytest.raises(MLXEmbedError, match=r"No server answers at .*start one with `mlx-embed serve`, or name none"):
        connect(url)
