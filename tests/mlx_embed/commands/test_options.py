"""An option that would change nothing is an error, before any work: what was asked for is not what would be done."""

import json
from pathlib import Path

import pytest

from mlx_embed import cli
from mlx_embed.index import Index
from tests.conftest import DATA

MODEL = str(DATA / "tiny-bert")


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in: texts, keys, ranges, and an index."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLX_EMBED_SERVER", raising=False)
    (tmp_path / "texts.txt").write_text("the wing\n")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "the wing"}) + "\n")
    (tmp_path / "keys").write_text("secret\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", MODEL, "to", "--group-size", "32"], "--group-size is of weights of 8 or 4 bits"),
        (
            ["convert", MODEL, "to", "--group-size", "64", "--quantize", "int8-cpu"],
            "--group-size is of weights",
        ),
        (["encode", "texts.txt", "--ranges", "r.npy"], "--ranges are of --output-dtype int8 and uint8"),
        (["encode", "texts.txt", "--ranges", "r.npy", "--output-dtype", "float16"], "--ranges are of"),
        (["encode", "texts.txt", "--api-key-file", "keys"], "--api-key-file is the key of a server"),
        (["encode", "texts.txt", "--server", "http://x", "--task", "query"], "--task names a LoRA here"),
        (
            ["encode", "texts.txt", "--sparse", "--model", MODEL, "--task", "x"],
            "--task x is neither document nor query",
        ),
        (["encode", "texts.txt", "--resume"], "--resume goes on with a file"),
        (["encode", "texts.txt", "--id-field", "id", "--format", "lines"], "A file of lines has no fields"),
        (["encode", "texts.txt", "--server", "http://x", "--dtype", "float16"], "--dtype is what the server"),
        (["encode", "texts.txt", "--server", "http://x", "--device", "cpu"], "--device is what the server"),
        (["encode", "texts.txt", "--server", "http://x", "--long-text", "mean_of_chunks"], "A server cuts long texts"),
        (["encode", "texts.txt", "--sparse", "--model", MODEL, "--truncate-dim", "3"], "--truncate-dim is not for"),
        (["serve", MODEL, "--open-health"], "--open-health is for a server with keys"),
        (["serve", "--reranker", MODEL, "--accept-token-ids"], "--accept-token-ids is for embedding models"),
        (["serve", MODEL, "--served-model-name", "a", "--served-model-name", "b"], "There are 2 names for 1 models"),
        (["serve", MODEL, "--served-model-name", ""], "--served-model-name is empty"),
        (["job", __file__, __file__, "--model", MODEL], f"{__file__} is a file: name a new folder"),
        (["search", "wing", "--index", "i", "--json", "--context", "2"], "--context is of passages as text"),
        (["compare", "--baseline", "b.json"], "--baseline is shown on the page"),
        (
            ["compare", "--sparse", "--model", MODEL, "--html", "page.html"],
            "A page is made of models",
        ),
    ],
)
def test_an_option_without_effect(
    arguments: list[str], message: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in there.iterdir()}
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert {path.name for path in there.iterdir()} == before


@pytest.mark.parametrize(
    "option", [["--model", MODEL], ["--dtype", "float32"], ["--device", "cpu"], ["--format", "jsonl"], ["--field", "a"]]
)
def test_a_map_of_an_index_has_no_options_of_a_file(
    option: list[str], there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mlx_embed.maps.layout.require", lambda: None)
    (there / "index").mkdir()
    monkeypatch.setattr(Index, "open", None)
    assert cli.main(["map", "index", *option]) == 2
    assert f"{option[0]} is of a file; index is an index" in capsys.readouterr().err


def test_the_sides_of_a_machine_without_an_accelerator(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mlx_embed.engine.device.accelerator", lambda: None)
    assert cli.main(["compare", "--sparse", "--model", MODEL, "--dtype", "float16"]) == 2
    assert "--dtype is of the accelerator's side, and there is none here" in capsys.readouterr().err
