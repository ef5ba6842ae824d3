"""The hub's cache, written by hand and read by huggingface_hub itself, with downloads switched off."""

import json
import shutil
from pathlib import Path

import pytest

from mlx_embed import EmbeddingModel, ModelNotFoundError
from mlx_embed.checkpoint import cache, hub
from tests.conftest import DATA

NAME, COMMIT = "someone/tiny", "0123456789abcdef0123456789abcdef01234567"


def cached(folder: Path, listed: list[str] | None = None, missing: tuple[str, ...] = ()) -> Path:
    """tiny-bert as the hub's cache has it, with links, without some files; `listed` are more of the listing."""
    repository = folder / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for path in sorted(path for path in (DATA / "tiny-bert").rglob("*") if path.is_file()):
        name = path.relative_to(DATA / "tiny-bert").as_posix()
        blob = repository / "blobs" / name.replace("/", "-")
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        if name not in missing:
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).symlink_to(blob)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    if listed is not None:
        names = [*listed, *missing, *(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*.json"))]
        files = {name: {"size": 1, "blob_id": "0" * 40} for name in names}
        (repository / "trees").mkdir()
        (repository / f"trees/{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": files}))
    return snapshot


@pytest.mark.parametrize(
    ("listed", "missing"),
    [
        (["data_config.json", "train_results.txt", "3_Other/config.json"], ()),
        (["vocab.txt", "special_tokens_map.json", "added_tokens.json", "model.safetensors.index.json"], ()),
        ([], ()),
        (None, ()),
    ],
)
def test_enough(listed: list[str] | None, missing: tuple[str, ...], tmp_path: Path) -> None:
    snapshot = cached(tmp_path, listed, missing)
    model = EmbeddingModel.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True, device="cpu")
    assert model.checkpoint.folder == snapshot
    assert model.name == NAME
    plain = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")
    assert (model.encode("the wing") == plain.encode("the wing")).all()


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (("modules.json",), "modules.json is missing"),
        (("modules.json", "1_Pooling/config.json"), "modules.json is missing"),
        (("modules.json", "config.json"), "config.json, modules.json are missing"),
        (("1_Pooling/config.json",), "1_Pooling/config.json is missing"),
        (("tokenizer.json", "config.json"), "config.json, tokenizer.json are missing"),
        (("model.safetensors",), "model.safetensors is missing"),
        (("config_sentence_transformers.json",), "config_sentence_transformers.json is missing"),
        (("sentence_bert_config.json",), "sentence_bert_config.json is missing"),
    ],
)
def test_not_enough(missing: tuple[str, ...], said: str, tmp_path: Path) -> None:
    cached(tmp_path, ["data_config.json"], missing)
    message = f"{NAME} is in the local cache, but incomplete: {said}. Connect once"
    with pytest.raises(ModelNotFoundError, match=message) as caught:
        EmbeddingModel.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True, device="cpu")
    assert caught.value.__context__ is None


def test_a_link_to_nothing_is_missing(tmp_path: Path) -> None:
    snapshot = cached(tmp_path, [])
    (snapshot / "modules.json").resolve().unlink()
    with pytest.raises(ModelNotFoundError, match=r"incomplete: modules\.json is missing"):
        hub.resolve(NAME, cache_dir=tmp_path, local_files_only=True)


@pytest.mark.parametrize(
    ("here", "listed", "needed"),
    [
        (["model.safetensors"], ["model-00001-of-00002.safetensors", "model.safetensors.index.json"], []),
        (["model.safetensors.index.json"], ["model-00001-of-00002.safetensors"], ["model-00001-of-00002.safetensors"]),
        (["model.safetensors.index.json"], ["model.safetensors"], []),
        (["config.json"], ["vocab.txt", "merges.txt", "vocab.json"], ["merges.txt", "vocab.json", "vocab.txt"]),
        (["tokenizer.json"], ["vocab.txt", "merges.txt"], []),
        (["config.json"], ["adapter_config.json", "adapter_other.json"], ["adapter_config.json"]),
        (["config.json"], ["1_Pooling/config.json", "x/config.json", "1_Pooling/a.txt"], ["1_Pooling/config.json"]),
        (["config.json"], ["chat_template.jinja", "artifact.metadata"], ["artifact.metadata"]),
    ],
)
def test_what_is_needed(here: list[str], listed: list[str], needed: list[str], tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"path": ""}, {"path": "1_Pooling"}]')
    for name in here:
        (tmp_path / name).write_text("{}")
    assert cache.needed([*here, *listed, "modules.json"], tmp_path) == needed


@pytest.mark.parametrize(
    "modules", [None, '[{"path": "", "type": "a.Transformer"}, {"path": "1", "type": "a.LogitScore"}]']
)
def test_a_template_by_which_a_reranker_may_be_asked_is_needed(modules: str | None, tmp_path: Path) -> None:
    if modules is not None:
        (tmp_path / "modules.json").write_text(modules)
    assert cache.needed(["chat_template.jinja"], tmp_path) == ["chat_template.jinja"]


@pytest.mark.parametrize("content", ["", "5", "[5]", "[{}]", "{}"])
def test_malformed_modules_are_left_to_their_reader(content: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(content)
    assert cache.needed(["modules.json", "config.json", "x/config.json"], tmp_path) == ["config.json"]
