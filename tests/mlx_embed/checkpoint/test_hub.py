"""From a name to a folder, with the hub's client replaced: nothing here touches the network."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from mlx_embed import EmbeddingModel, EmbeddingModelType, ModelNotFoundError
from mlx_embed.checkpoint import hub
from tests.conftest import DATA

E5 = "intfloat/e5-small-v2"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MPNET = "sentence-transformers/all-mpnet-base-v2"
Calls = list[tuple[str, dict[str, Any]]]


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What was asked of the hub, which has tiny-bert under every name."""
    calls: Calls = []

    def snapshot_download(name: str, **options: Any) -> str:
        calls.append((name, options))
        return str(DATA / "tiny-bert")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        (E5, E5),
        ("e5-small-v2", E5),
        ("E5_SMALL_V2", E5),
        (EmbeddingModelType.E5_SMALL_V2, E5),
        ("all-minilm-l6-v2", MINILM),
        ("all-MiniLM-L6-v2", MINILM),
        (EmbeddingModelType.ALL_MINILM_L6_V2, MINILM),
        ("ALL_MPNET_BASE_V2", MPNET),
        (EmbeddingModelType.ALL_MPNET_BASE_V2, MPNET),
        ("someone/Some_Model", "someone/Some_Model"),
        ("bert-base-uncased", "bert-base-uncased"),
    ],
)
def test_names(name: str, repository: str, asked: Calls) -> None:
    assert hub.repository_id(name) == repository
    assert hub.resolve(name) == DATA / "tiny-bert"
    assert [call[0] for call in asked] == [repository]


def test_every_model_type_is_a_repository_with_an_alias() -> None:
    for model in EmbeddingModelType:
        assert model.value.count("/") == 1
        assert hub.repository_id(model.name) == hub.repository_id(model.name.lower()) == model.value
    assert hub.DEFAULT_MODEL.value == E5


def test_e5_is_the_default_and_has_its_prompts(asked: Calls) -> None:
    model = EmbeddingModel.from_pretrained(device="cpu")
    assert [call[0] for call in asked] == [E5]
    assert model.checkpoint.prompts == {"query": "query: ", "passage": "passage: "}
    assert E5 in repr(model)


def test_what_is_asked_of_the_hub(asked: Calls, tmp_path: Path) -> None:
    hub.resolve(E5, revision="abc", cache_dir=tmp_path, local_files_only=True)
    _, options = asked[0]
    wanted = {"revision": "abc", "cache_dir": tmp_path, "local_files_only": True}
    assert {key: options[key] for key in wanted} == wanted
    assert not [pattern for pattern in options["allow_patterns"] if pattern.endswith((".bin", ".pt", ".pkl", ".py"))]


@pytest.mark.parametrize("name", [E5, "e5-small-v2"])
def test_a_folder_wins(name: str, asked: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub.resolve(name) == Path(name)
    assert hub.resolve(Path(name)) == Path(name)
    assert asked == []


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert hub.resolve("~/model") == tmp_path / "model"


def test_a_file_instead_of_a_folder(asked: Calls, checkpoint: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors is a file; name the folder that holds"):
        hub.resolve(checkpoint / "model.safetensors")
    assert asked == []


@pytest.mark.parametrize(
    "name", ["./model", "../model", "/no/model", "~/no model", "~nobody-here/model", "a/b/c", "a/b/c/d", Path("model")]
)
def test_what_can_only_be_a_folder(name: str | Path, asked: Calls) -> None:
    """The hub, which here has a model of every name, is not asked for it."""
    with pytest.raises(ModelNotFoundError, match="There is no folder"):
        hub.resolve(name)
    assert asked == []


def test_a_name_that_neither_a_disk_nor_the_hub_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refusing(errors.HFValidationError("too long")))
    with pytest.raises(ModelNotFoundError, match="is neither a folder nor a repository id"):
        hub.resolve("x" * 300)


def refusing(error: Exception) -> Any:
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise error

    return snapshot_download


def of_the_hub(kind: type[Exception]) -> Exception:
    """An error of the hub's client, which wants the server's response otherwise."""
    error = kind.__new__(kind)
    Exception.__init__(error, "the hub's own words")
    return error


class ConnectError(Exception):
    """As httpx raises it: no OSError."""


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (errors.HFValidationError("x"), {}, f"'{E5}' is neither a folder nor a repository id of the hub"),
        (of_the_hub(errors.GatedRepoError), {}, "is gated: accept its terms on the hub, then log in"),
        (of_the_hub(errors.RevisionNotFoundError), {"revision": "v9"}, f"{E5} has no revision 'v9' on the hub"),
        (of_the_hub(errors.RepositoryNotFoundError), {}, f"The hub has no model '{E5}' .* and there is no such folder"),
        (errors.LocalEntryNotFoundError("x"), {}, "is not in the local cache and the hub cannot be reached. Connect"),
        (errors.LocalEntryNotFoundError("x"), {"local_files_only": True}, "local cache and downloads are switched off"),
        (errors.OfflineModeIsEnabled("offline"), {}, f"{E5} could not be downloaded: offline"),
        (OSError("No space left on device"), {}, "could not be downloaded: No space left on device"),
        (ConnectError("connection reset"), {}, "could not be downloaded: connection reset"),
    ],
)
def test_errors_of_the_hub(
    error: Exception, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refusing(error))
    with pytest.raises(ModelNotFoundError, match=message) as caught:
        EmbeddingModel.from_pretrained(E5, device="cpu", **options)
    assert caught.value.__cause__ is error


def test_the_real_client_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub itself, with downloads switched off and an empty cache."""
    monkeypatch.undo()
    with pytest.raises(ModelNotFoundError, match="is not in the local cache and downloads are switched off"):
        hub.resolve(E5, cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(ModelNotFoundError, match="is neither a folder nor a repository id"):
        hub.resolve("no such model", cache_dir=tmp_path, local_files_only=True)
