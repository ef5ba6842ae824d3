"""A server from its start to its end: 503 until it is warm, what is running answered at SIGTERM, bad arguments."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mlx_embed import EmbeddingModel, cli
from mlx_embed.commands.serve import served_names
from mlx_embed.serve.app import Route
from mlx_embed.serve.openapi import document
from tests.bge_m3 import make as make_m3
from tests.conftest import DATA, ROOT
from tests.mlx_embed.serve.harness import SECONDS, random_texts, serving, until
from tests.multi_vector import make as make_multi_vector
from tests.sparse import make as make_sparse

TOLERANCE = 1e-5


def started(*arguments: str, **environment: str) -> tuple["subprocess.Popen[str]", str]:
    """`mlx-embed serve` on a free port, and its address."""
    command = [sys.executable, "-m", "mlx_embed.cli", "serve", "--port", "0", "--device", "cpu", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | environment
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def healthy(url: str) -> bool:
    try:
        return httpx.get(url + "/health").status_code == 200
    except httpx.TransportError:
        return False


def test_503_until_the_models_are_there(encoder: EmbeddingModel) -> None:
    hold = threading.Event()
    with serving({"tiny": encoder}, hold=hold) as running:
        for path in ("/health", "/", "/v1/models"):
            assert running.get(path).status_code == 503
        answer = running.post("/v1/embeddings", {"input": "a"})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert running.get("/metrics").status_code == 200
        hold.set()
        until(lambda: running.get("/health").status_code == 200)
        assert running.post("/v1/embeddings", {"input": "a"}).status_code == 200


def test_sigterm_answers_what_runs_and_ends_with_0(encoder: EmbeddingModel) -> None:
    texts = random_texts(2000, 60)
    process, url = started(str(DATA / "tiny-bert"), "--max-batch-tokens", "50", "--grace", "20")
    try:
        until(lambda: healthy(url))
        with ThreadPoolExecutor(4) as pool:
            answers = [
                pool.submit(httpx.post, url + "/embed", json={"inputs": texts}, timeout=SECONDS) for _ in range(4)
            ]
            until(lambda: b"mlx_embed_requests_running 4.0" in httpx.get(url + "/metrics").content)
            process.send_signal(signal.SIGTERM)
            for answer in answers:
                assert answer.result().status_code == 200
                assert np.abs(np.array(answer.result().json()) - encoder.encode(texts)).max() <= TOLERANCE
        assert process.wait(SECONDS) == 0
        assert not healthy(url)
    finally:
        process.kill()
        _, errors = process.communicate()
    assert "Traceback" not in errors


def test_sigterm_ends_within_the_grace() -> None:
    process, url = started(
        str(DATA / "tiny-bert"), "--max-batch-tokens", "1", "--grace", "1", "--max-waiting-tokens", "9999999"
    )
    try:
        until(lambda: healthy(url))
        body = {"inputs": random_texts(2048, 60)}
        with ThreadPoolExecutor(40) as pool:
            answers = [pool.submit(httpx.post, url + "/embed", json=body, timeout=SECONDS) for _ in range(40)]
            until(lambda: b"mlx_embed_requests_running 40.0" in httpx.get(url + "/metrics").content)
            process.send_signal(signal.SIGTERM)
            assert process.wait(8) == 0
            assert {answer.result().status_code for answer in answers} <= {200, 503}
    finally:
        process.kill()
        _, errors = process.communicate()
    assert "Traceback" not in errors


def test_a_second_signal_answers_what_runs_and_ends_at_once() -> None:
    process, url = started(str(DATA / "tiny-bert"), "--max-batch-tokens", "1", "--grace", "600")
    try:
        until(lambda: healthy(url))
        body = {"inputs": random_texts(2048, 60)}
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(httpx.post, url + "/embed", json=body, timeout=SECONDS) for _ in range(4)]
            until(lambda: b"mlx_embed_requests_running 4.0" in httpx.get(url + "/metrics").content)
            process.send_signal(signal.SIGINT)
            until(lambda: not healthy(url))
            process.send_signal(signal.SIGINT)
            assert process.wait(8) == 0
            assert {answer.result().status_code for answer in answers} == {503}
            assert all("stopping" in answer.result().json()["error"] for answer in answers)
    finally:
        process.kill()
        _, errors = process.communicate()
    assert "Traceback" not in errors


def test_a_model_that_cannot_be_loaded_ends_it(tmp_path: Path) -> None:
    process, _ = started(str(tmp_path))
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert errors.startswith("mlx-embed: ")
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-concurrent", "0"], "--max-concurrent 0"),
        (["--timeout", "-1"], "--timeout -1"),
        (["--max-batch-tokens", "0"], "--max-batch-tokens 0"),
        (["--port", "65536"], "--port 65536 is not within 0..65535"),
        (["--port", "-1"], "--port -1 is not within 0..65535"),
        (["--api-key-file", "/nowhere"], "/nowhere"),
        (["--allow-origin", "example.org"], "is no origin"),
        (["--served-model-name", "a", "--served-model-name", "b"], "2 names for 1 models"),
        (["--reranker", "x/tiny-bert", "--served-model-name", "tiny-bert", "--served-model-name", "tiny-bert"], "Two"),
        (["--host", "no.such.host.invalid"], "Cannot listen on no.such.host.invalid"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", str(DATA / "tiny-bert"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str], encoder: EmbeddingModel) -> None:
    with serving({"tiny": encoder}) as running:
        port = running.url.rpartition(":")[2]
        assert cli.main(["serve", str(DATA / "tiny-bert"), "--port", port]) == 2
    assert f"port {port}" in capsys.readouterr().err


def test_without_the_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("mlx_embed.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["serve", str(DATA / "tiny-bert")]) == 2
    assert 'pip install ".[serve]"' in capsys.readouterr().err


def test_a_warning_where_everybody_may_use_it() -> None:
    process, url = started(str(DATA / "tiny-bert"), "--host", "127.0.0.1")
    process.terminate()
    assert "WARNING" not in process.communicate(timeout=SECONDS)[1]
    assert url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("models", "wanted", "names"),
    [
        (["all-minilm-l6-v2"], [], ["sentence-transformers/all-MiniLM-L6-v2"]),
        ([str(DATA / "tiny-bert"), "a/b"], [], ["tiny-bert", "a/b"]),
        (["a/b", "c/d"], ["x"], ["x", "c/d"]),
    ],
)
def test_names(models: list[str], wanted: list[str], names: list[str]) -> None:
    assert served_names(models, wanted) == names


def test_the_name_of_a_folder_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "link").symlink_to("new")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert served_names(["~/link", "~"], []) == ["new", tmp_path.name]


def test_each_option_serves_a_model_of_its_kind(
    tmp_path: Path, reranker_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[str, str]] = []

    class Loading:
        def __init__(self, service: Any, load: Any) -> None:
            assert service.models.names == ["tiny-bert", "tiny-reranker", "s", "l", "m3"]
            service.models.add(load())
            served.extend((name, model.kind) for name, model in service.models.loaded.items())
            service.models.close()

        def serve_on(self, listening: Any) -> None:
            pass

    monkeypatch.setattr(import_module("mlx_embed.serve.run"), "Server", Loading)
    sparse, late = make_sparse(tmp_path / "s", "queries looked up"), make_multi_vector(tmp_path / "l", "prompts")
    options = ["--reranker", reranker_folder, "--sparse", sparse, "--multi-vector", late]
    options += ["--bge-m3", make_m3(tmp_path / "m3"), "--port", "0", "--device", "cpu"]
    assert cli.main(["serve", str(DATA / "tiny-bert"), *map(str, options)]) == 0
    assert served == [
        ("tiny-bert", "embedding model"),
        ("tiny-reranker", "reranker"),
        ("s", "sparse model"),
        ("l", "late-interaction model"),
        ("m3", "BGE-M3 model"),
    ]


def test_the_description_has_every_route(encoder: EmbeddingModel) -> None:
    with serving({"tiny": encoder}) as running:
        described: dict[str, Any] = running.get("/openapi.json").json()
    embeddings = described["paths"]["/v1/embeddings"]["post"]
    reference = embeddings["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    request = described["components"]["schemas"][reference.rpartition("/")[2]]
    assert request["required"] == ["input"]
    assert set(described["paths"]["/"]) == {"get", "post"}
    assert set(embeddings["responses"]) >= {"200", "400", "404", "413", "429", "503"}


def test_the_description_needs_no_docstrings() -> None:
    """Which python -OO leaves out."""
    described = document([Route(("/x",), lambda *_: None, answer=str)])  # type: ignore[arg-type,return-value]
    assert described["paths"]["/x"]["get"]["summary"] == "/x"
