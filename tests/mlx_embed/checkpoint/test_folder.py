"""What a checkpoint folder says of itself: defaults, precedence, and JSON that is broken or of the wrong type."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mlx_embed import CheckpointError, EmbeddingModel, UnsupportedModelError
from mlx_embed.architectures import bert
from mlx_embed.checkpoint import Checkpoint, read_checkpoint
from mlx_embed.checkpoint.folder import E5_PROMPTS
from tests.conftest import DATA

SENTENCE = "config_sentence_transformers.json"
FILES = [
    "config.json",
    "modules.json",
    SENTENCE,
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
    "2_Normalize/config.json",
]


def change(folder: Path, file: str, changes: Mapping[str, Any]) -> Path:
    """Change keys of a JSON file, which need not be there yet."""
    path = folder / file
    present = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(present | changes))
    return folder


def bare(folder: Path) -> Path:
    for file in ("modules.json", SENTENCE, "sentence_bert_config.json", "tokenizer_config.json"):
        (folder / file).unlink()
    return folder


def load(folder: Path) -> EmbeddingModel:
    return EmbeddingModel.from_pretrained(folder, device="cpu")


def test_a_bare_checkpoint(checkpoint: Path) -> None:
    found = read_checkpoint(bare(checkpoint))
    config = bert.Config.from_dict(found.config)
    assert found == Checkpoint(checkpoint, checkpoint, found.config, bert, config, 32)
    assert found.pooling.modes == ("mean",)
    assert not found.normalize
    assert not found.prompts
    model = load(checkpoint)
    assert model.max_seq_length == 64, "the positions' number"
    assert model.encode_query("a").shape == (32,)


BARE = json.loads((DATA / "odd/bare.json").read_text())["rows"]


@pytest.mark.parametrize("row", BARE, ids=[f"{row['source']}, {row.get('config') or row['beside']}" for row in BARE])
def test_pooling_of_a_bare_checkpoint(row: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DATA / row["source"], tmp_path / "a"))
    for file in ("modules.json", SENTENCE):
        (folder / file).unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text()) | row.get("config", {})
    (folder / "config.json").write_text(json.dumps({key: x for key, x in config.items() if x is not None}))
    for file, content in row.get("beside", {}).items():
        change(folder, file, content)
    found = read_checkpoint(folder)
    assert (found.pooling.modes, found.modules, found.normalize) == ((row["pooling"],), (), False)


@pytest.mark.parametrize("named", ["BertForCausalLM", [], [None], [["BertForCausalLM"]], {}])
def test_architectures_of_another_kind(named: object, checkpoint: Path) -> None:
    change(bare(checkpoint), "config.json", {"architectures": named})
    assert read_checkpoint(checkpoint).pooling.modes == ("mean",)


@pytest.mark.parametrize("kind", ["custom_st.Transformer", "Transformer", "sentence_transformersx.models.Transformer"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_class_of_the_repositorys_own(place: int, kind: str, checkpoint: Path) -> None:
    """sentence-transformers does not run it either, unless told to trust it."""
    modules = json.loads((checkpoint / "modules.json").read_text())
    modules[place]["type"] = kind
    (checkpoint / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UnsupportedModelError, match=rf"modules\.json names {re.escape(kind)}: code of the repository"):
        load(checkpoint)


def test_parts_of_a_model_without_their_index(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00002.safetensors")
    with pytest.raises(
        CheckpointError, match=r"model-00001-of-00002\.safetensors, .* no model\.safetensors\.index\.json"
    ):
        load(checkpoint)


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["pytorch_model.bin"], r"It has pytorch_model\.bin, which .* save it as safetensors, by transformers'"),
        (["model.onnx"], r"It has model\.onnx, made from another .* Take the model that it was made from"),
        (["model.gguf"], r"It has model\.gguf, made from another .* Take the model that it was made from"),
        (["tf_model.h5", "model.onnx"], r"It has model\.onnx, tf_model\.h5, which .*, from_tf=True\)\.save_.* Tensor"),
        (
            ["onnx/model.onnx", "openvino/openvino_model.xml"],
            "It has onnx/model.onnx, openvino/openvino_model.xml, made from",
        ),
        (["onnx/model.onnx", "pytorch_model.bin"], "It has onnx/model.onnx, pytorch_model.bin, which .* save it"),
    ],
)
def test_weights_of_another_kind(files: list[str], message: str, with_config: bool, checkpoint: Path) -> None:
    for file in ["model.safetensors", *([] if with_config else ["config.json"])]:
        (checkpoint / file).unlink()
    for file in files:
        (checkpoint / file).parent.mkdir(exist_ok=True)
        (checkpoint / file).write_bytes(b"x")
    missing = "" if with_config else r"config\.json is missing, and so is model\.safetensors\. "
    with pytest.raises(CheckpointError, match=missing + message):
        load(checkpoint)


BESIDE = [row for row in json.loads((DATA / "odd" / "bare.json").read_text())["rows"] if "beside" in row]


@pytest.mark.parametrize("row", BESIDE, ids=lambda row: next(iter(row["beside"])))
def test_golden_files_beside_a_bare_checkpoint(row: dict[str, Any], checkpoint: Path) -> None:
    """Without modules.json, what sentence-transformers' other files say is not read, as there."""
    (checkpoint / "modules.json").unlink()
    for file, content in row["beside"].items():
        (checkpoint / file).write_text(json.dumps(content))
    model = load(checkpoint)
    assert model.checkpoint.pooling.modes == (row["pooling"],)
    assert model.max_seq_length == row["max_seq_length"]
    assert model.checkpoint.default_prompt_name == row["default"]
    assert not any(model.checkpoint.prompts.values())
    assert not any(row["prompts"].values())


def test_a_folder_that_was_saved_as_another_kind_of_model(checkpoint: Path) -> None:
    """What it says of itself is of a reranker: an embedding model takes it for a bare one, as sentence-transformers."""
    change(checkpoint, SENTENCE, {"prompts": {"query": "q: "}, "default_prompt_name": "query"})
    change(checkpoint, "sentence_bert_config.json", {"max_seq_length": 20})
    assert read_checkpoint(checkpoint).max_seq_length == 20
    for found in (
        read_checkpoint(checkpoint, kind="CrossEncoder"),
        read_checkpoint(change(checkpoint, SENTENCE, {"model_type": "CrossEncoder"})),
    ):
        assert (found.prompts, found.default_prompt_name, found.max_seq_length) == ({}, None, 64)
        assert (found.pooling.modes, found.normalize) == (("mean",), False)


def test_a_chat_template_of_a_bare_checkpoint_is_named(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text("{{ messages }}")
    load(checkpoint)
    (checkpoint / "modules.json").unlink()
    with pytest.warns(UserWarning, match="has a chat template and no modules.json"):
        load(checkpoint)


def test_what_sentence_transformers_wrote(checkpoint: Path) -> None:
    change(checkpoint, SENTENCE, {"prompts": {"query": "q: "}, "default_prompt_name": "query"})
    change(checkpoint, SENTENCE, {"similarity_fn_name": "dot", "truncate_dim": 40})
    found = read_checkpoint(checkpoint)
    assert found.normalize
    assert found.modules == ()
    assert (found.prompts, found.default_prompt_name) == ({"query": "q: "}, "query")
    assert (found.similarity, found.truncate_dim) == ("dot", 32)


@pytest.mark.parametrize(
    ("bert", "tokenizer", "expected"),
    [
        ({"max_seq_length": 20}, {"model_max_length": 30}, 20),
        ({"max_seq_length": None}, {"model_max_length": 30}, 30),
        ({}, {"model_max_length": 30}, 30),
        ({"max_seq_length": 50}, {"model_max_length": 30}, 50),
        ({}, {"model_max_length": 1e30}, None),
        ({}, {"model_max_length": int(1e30)}, None),
        ({}, {"model_max_length": None}, None),
        ({"max_seq_length": 4096}, {}, 4096),
        ({}, {"max_len": 30}, None),
    ],
)
def test_lengths(bert: dict[str, Any], tokenizer: dict[str, Any], expected: int | None, checkpoint: Path) -> None:
    change(checkpoint, "sentence_bert_config.json", bert)
    change(checkpoint, "tokenizer_config.json", {"model_max_length": None} | tokenizer)
    assert read_checkpoint(checkpoint).max_seq_length == expected
    assert load(checkpoint).max_seq_length == min(expected or 64, 64)


def test_the_users_length_wins(checkpoint: Path) -> None:
    change(checkpoint, "sentence_bert_config.json", {"max_seq_length": 20})
    assert EmbeddingModel.from_pretrained(checkpoint, device="cpu", max_seq_length=40).max_seq_length == 40


def test_the_old_name_of_the_tokenizers_length(checkpoint: Path) -> None:
    path = change(checkpoint, "tokenizer_config.json", {"max_len": 30}) / "tokenizer_config.json"
    assert read_checkpoint(checkpoint).max_seq_length == 64, "today's name counts"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "model_max_length"}))
    assert read_checkpoint(checkpoint).max_seq_length == 30


ROBERTA, ALBERT = "sentence_roberta_config.json", "sentence_albert_config.json"


@pytest.mark.parametrize("file", [ROBERTA, ALBERT, "sentence_xlm-roberta_config.json", "sentence_xlnet_config.json"])
def test_old_names_of_the_transformers_settings(file: str, checkpoint: Path) -> None:
    (checkpoint / "sentence_bert_config.json").unlink()
    change(checkpoint, file, {"max_seq_length": 21, "do_lower_case": True})
    found = read_checkpoint(checkpoint)
    assert (found.max_seq_length, found.do_lower_case) == (21, True)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[1]", b'"x"', b"null", b"[" * 100_000, b"\xef\xbb\xbf{}"]
)
@pytest.mark.parametrize("file", FILES)
def test_malformed_json(file: str, content: bytes, checkpoint: Path) -> None:
    (checkpoint / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        load(checkpoint)


@pytest.mark.parametrize("file", ["config.json", "1_Pooling/config.json"])
def test_a_missing_file(file: str, checkpoint: Path) -> None:
    (checkpoint / file).unlink()
    with pytest.raises(CheckpointError, match=f"{file} is missing"):
        load(checkpoint)


OPTIONAL = [file for file in FILES if file not in ("config.json", "1_Pooling/config.json")]


@pytest.mark.parametrize(
    "file",
    [*FILES, "tokenizer.json", "model.safetensors", "model.safetensors.index.json", "sentence_roberta_config.json"],
)
def test_a_link_to_nothing_is_a_missing_file(file: str, checkpoint: Path) -> None:
    """As in the hub's cache after a file of its blobs is deleted; what the file said must not count as absent."""
    if file == "model.safetensors.index.json":
        (checkpoint / "model.safetensors").unlink()
    if file == "sentence_roberta_config.json":
        (checkpoint / "sentence_bert_config.json").unlink()
    (checkpoint / file).unlink(missing_ok=True)
    (checkpoint / file).symlink_to("../blobs/0123")
    with pytest.raises(CheckpointError, match=rf"{re.escape(file)} is a link to \.\./blobs/0123, which is missing"):
        load(checkpoint)


@pytest.mark.parametrize("file", OPTIONAL)
def test_a_folder_in_the_place_of_a_file(file: str, checkpoint: Path) -> None:
    (checkpoint / file).unlink()
    (checkpoint / file).mkdir()
    with pytest.raises(CheckpointError, match=rf"{re.escape(file)} is no file"):
        load(checkpoint)


def test_links_are_followed(checkpoint: Path, tmp_path: Path) -> None:
    """The hub's cache keeps all of a checkpoint's files as links."""
    expected = load(checkpoint).encode("the wing")
    blobs = checkpoint.rename(tmp_path / "blobs")
    for path in blobs.rglob("*"):
        if path.is_file():
            link = checkpoint / path.relative_to(blobs)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    assert (load(checkpoint).encode("the wing") == expected).all()


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing; a checkpoint folder needs it"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": None}, 'config.json has no "model_type"'),
        ("config.json", {"model_type": ["bert"]}, 'config.json has no "model_type"'),
        ("config.json", {"hidden_size": "32"}, "\"hidden_size\": '32', where an int is needed"),
        ("config.json", {"hidden_size": 32.0}, '"hidden_size": 32.0'),
        ("config.json", {"hidden_size": True}, '"hidden_size": True'),
        ("config.json", {"hidden_size": None}, '"hidden_size": None'),
        ("config.json", {"hidden_size": -32}, '"hidden_size": -32'),
        ("config.json", {"hidden_size": 0}, '"hidden_size": 0'),
        ("config.json", {"intermediate_size": 0}, '"intermediate_size": 0'),
        ("config.json", {"num_attention_heads": 0}, '"num_attention_heads": 0'),
        ("config.json", {"num_attention_heads": 5}, "hidden_size 32 for 5 attention heads"),
        ("config.json", {"vocab_size": 60}, r"token ids up to \d+, but config.json gives the model 60 embeddings"),
        ("config.json", {"layer_norm_eps": "tiny"}, "\"layer_norm_eps\": 'tiny'"),
        ("config.json", {"layer_norm_eps": float("nan")}, '"layer_norm_eps": nan'),
        ("config.json", {"hidden_act": ["gelu"]}, r'"hidden_act": \[\'gelu\'\]'),
        ("sentence_bert_config.json", {"max_seq_length": 0}, '"max_seq_length": 0'),
        ("sentence_bert_config.json", {"max_seq_length": "64"}, "\"max_seq_length\": '64'"),
        ("sentence_bert_config.json", {"max_seq_length": True}, '"max_seq_length": True'),
        ("sentence_bert_config.json", {"max_seq_length": 1}, "A maximum of 1 tokens leaves no room for text"),
        ("sentence_bert_config.json", {"do_lower_case": "false"}, "\"do_lower_case\": 'false'"),
        ("tokenizer_config.json", {"model_max_length": float("nan")}, '"model_max_length": nan'),
        ("tokenizer_config.json", {"model_max_length": [64]}, r'"model_max_length": \[64\]'),
        ("1_Pooling/config.json", {"include_prompt": "false"}, "\"include_prompt\": 'false'"),
        (SENTENCE, {"default_prompt_name": ["query"]}, r"default prompt \['query'\]"),
        (SENTENCE, {"similarity_fn_name": ["cosine"]}, r"similarity_fn_name \['cosine'\]"),
        (SENTENCE, {"truncate_dim": "8"}, "\"truncate_dim\": '8'"),
    ],
)
def test_a_value_of_the_wrong_type(file: str, changes: dict[str, Any], message: str, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(change(checkpoint, file, changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "opt"}, "model_type 'opt' is not supported; mlx_embed has albert"),
        ({"hidden_act": "prelu"}, "prelu"),
        ({"position_embedding_type": "relative_key"}, "\"position_embedding_type\": 'relative_key'"),
    ],
)
def test_an_unsupported_model(changes: dict[str, Any], message: str, checkpoint: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        load(change(checkpoint, "config.json", changes))


def test_a_size_that_config_json_lacks(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    del config["intermediate_size"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="has no \"intermediate_size\", which model_type 'bert' needs"):
        load(checkpoint)


@pytest.mark.parametrize("modules", [[1], [{"path": ""}], [{"type": "a.Transformer"}], {"0": "x"}, [None]])
def test_modules_json_of_another_shape(modules: object, checkpoint: Path) -> None:
    (checkpoint / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=r"modules\.json is not a list of modules with a type and a path"):
        load(checkpoint)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "a/../../b"])
@pytest.mark.parametrize("place", [0, 1])
def test_modules_json_stays_in_the_folder(place: int, path: str, checkpoint: Path) -> None:
    modules = json.loads((checkpoint / "modules.json").read_text())
    modules[place]["path"] = path
    (checkpoint / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=rf"modules\.json points to '{path}', outside the checkpoint"):
        load(checkpoint)


@pytest.mark.parametrize("path", ["1" * 300, "config.json/x", "a\0b"])
@pytest.mark.parametrize("place", [0, 1])
def test_modules_json_names_no_folder(place: int, path: str, checkpoint: Path) -> None:
    modules = json.loads((checkpoint / "modules.json").read_text())
    modules[place]["path"] = path
    (checkpoint / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=r"modules\.json points to '"):
        load(checkpoint)


E5_NAMES = {
    "intfloat/e5-small-v2": True,
    "intfloat/e5-base": True,
    "intfloat/multilingual-e5-large": True,
    "intfloat/e5-large-unsupervised": True,
    "someone/my-e5-small-v2": True,
    "/cache/models--intfloat--e5-small-v2/snapshots/0123abcd": True,
    "intfloat/multilingual-e5-large-instruct": False,
    "intfloat/e5-mistral-7b-instruct": False,
    "someone/note5-small": False,
    "sentence-transformers/all-MiniLM-L6-v2": False,
}


@pytest.mark.parametrize("name", E5_NAMES)
def test_e5_prompts_by_name(name: str, checkpoint: Path) -> None:
    assert read_checkpoint(checkpoint, name).prompts == (
        E5_PROMPTS if E5_NAMES[name] else {"document": "", "query": ""}
    )


def test_prompts_of_the_checkpoint_win_over_e5s(checkpoint: Path) -> None:
    change(checkpoint, SENTENCE, {"prompts": {"query": "ask: "}})
    assert read_checkpoint(checkpoint, "intfloat/e5-small-v2").prompts == {"query": "ask: "}


@pytest.mark.parametrize("where", [".", "folder", "link"])
def test_an_e5_folder_however_it_is_named(where: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint.rename(checkpoint.with_name("e5-small-v2"))
    (folder.parent / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    model = load(folder if where == "folder" else Path(where) if where == "." else folder.parent / where)
    assert model.checkpoint.prompts == E5_PROMPTS
    plain = model.encode(["query: a", "passage: a"])
    assert abs(model.encode_query("a") - plain[0]).max() <= 1e-5
    assert abs(model.encode_document("a") - plain[1]).max() <= 1e-5
