"""Who may use a server: keys, and no web page on loopback."""

from pathlib import Path

import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.serve.access import Access, allowed_origins, is_loopback
from mlx_embed.serve.errors import Refusal
from mlx_embed.serve.keys import read_keys
from tests.mlx_embed.serve.harness import Running, serving

BODY = {"input": "the wing"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:1234", 200),
        ("LOCALHOST.", 200),
        ("127.0.0.1", 200),
        ("127.9.9.9:80", 200),
        ("[::1]:8080", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("10.0.0.1", 403),
        ("[", 403),
        ("", 403),
    ],
)
def test_the_host_has_to_be_this_machine(running: Running, host: str, status: int) -> None:
    answer = running.post("/v1/embeddings", BODY, headers={"Host": host})
    assert answer.status_code == status
    if status == 403:
        assert "--host" in answer.json()["error"]["message"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "app://obsidian.md"])
def test_web_pages_may_not(running: Running, origin: str) -> None:
    answer = running.post("/embed", {"inputs": "a"}, headers={"Origin": origin})
    assert answer.status_code == 403
    assert f"--allow-origin {origin}" in answer.json()["error"]


def test_web_pages_that_may(encoder: EmbeddingModel) -> None:
    access = Access(keys=("secret",), origins=allowed_origins(["http://localhost:3000", "app://obsidian.md"]))
    with serving({"tiny": encoder}, access=access) as running:
        for origin in access.origins:
            headers = {"Origin": origin, "Authorization": "Bearer secret"}
            answer = running.post("/v1/embeddings", BODY, headers=headers)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
        preflight = {
            "Origin": "http://localhost:3000",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type",
        }
        import httpx

        answer = httpx.options(running.url + "/v1/embeddings", headers=preflight)
        assert answer.status_code == 200
        assert "authorization" in answer.headers["access-control-allow-headers"]
        assert running.post("/v1/embeddings", BODY, headers={"Origin": "https://evil.example"}).status_code == 403


def test_keys(encoder: EmbeddingModel) -> None:
    with serving({"tiny": encoder}, access=Access(keys=("first", "sécond"))) as running:
        for headers in (
            {"Authorization": "Bearer first"},
            {"authorization": "bearer  first"},
            {"X-API-Key": "first"},
            {"api-key": "first"},
            {"Authorization": "Bearer sécond".encode()},
        ):
            assert running.post("/v1/embeddings", BODY, headers=headers).status_code == 200, headers
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "first"}, {"X-API-Key": "firs"}):
            answer = running.post("/v1/embeddings", BODY, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["type"] == "authentication_error"
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/health", "/metrics", "/v1/models", "/openapi.json"):
            assert running.get(path).status_code == 401


def test_health_without_a_key(encoder: EmbeddingModel) -> None:
    with serving({"tiny": encoder}, access=Access(keys=("secret",), open_health=True)) as running:
        assert running.get("/health").status_code == running.get("/metrics").status_code == 200
        assert running.get("/info").status_code == 401


def test_other_hosts_where_not_on_loopback() -> None:
    scope = {"headers": [(b"host", b"gpu.example"), (b"origin", b"https://gpu.example")], "path": "/embed"}
    Access(loopback=False).check(scope)
    with pytest.raises(Refusal):
        Access(loopback=True).check(scope)


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# of the laptop\n one \n\ntwo\n")
    assert read_keys(path) == ("one", "two")
    path.write_text("one\n", encoding="utf-8-sig")
    assert read_keys(path) == ("one",)
    path.write_text("# none\n")
    with pytest.raises(ValueError, match="has no key"):
        read_keys(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=f"{path.name} is not UTF-8"):
        read_keys(path)
    with pytest.raises(OSError, match="missing"):
        read_keys(tmp_path / "missing")


@pytest.mark.parametrize("origin", ["example.org", "https://example.org/path", "https://", ""])
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        allowed_origins([origin])


@pytest.mark.parametrize(("host", "loopback"), [("::1", True), ("127.0.0.1", True), ("0.0.0.0", False), ("::", False)])
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
