"""Each row of tokenizer_classes.json, made by running transformers: classes, tokenizer_config.json, tokenizer.json."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from mlx_embed import CheckpointError, CrossEncoder, EmbeddingModel, UnsupportedModelError
from mlx_embed.checkpoint import Checkpoint, read_checkpoint
from mlx_embed.tokenizer import Tokenizer, classes, files
from mlx_embed.tokenizer.classes import state
from mlx_embed.tokenizer.pairs import PairTokenizer
from tests.checkpoints import reranker
from tests.conftest import DATA

TABLE = json.loads((DATA / "tokenizer_classes.json").read_text())
VALUES, ROWS = TABLE["values"], TABLE["cases"]
FLAGS = {"add_bos_token", "add_eos_token"}
# What an outcome has as it is, and not by its place in the table's values.
PLAIN = ("class", "error", "truncation_side", "padding_side", "model_max_length")
OLD = "4.57.6"
# Rows whose class has rules that are not written here, of files that it would change.
WARNED = ("FunnelTokenizer", "SplinterTokenizer")


def outcome(place: int) -> dict[str, Any]:
    return {key: value if key in PLAIN else VALUES[value] for key, value in VALUES[place].items()}


def write(folder: Path, row: dict[str, Any]) -> Checkpoint:
    """The folder of a row, as a checkpoint whose model has room for every token."""
    config = {"model_type": row["model_type"], **row.get("config", {})}
    settings = {} if row.get("bare") else row["tokenizer_config"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if row["file"]:
        file = json.loads(json.dumps(TABLE["files"][row["file"]]))
        for part, place in row.get("change", {}).items():
            file[part] = file[part] | VALUES[place] if part == "model" else VALUES[place]
        if file["model"]["type"] is None:
            del file["model"]["type"]
        (folder / "tokenizer.json").write_text(json.dumps(file))
    for name, content in row.get("others", {}).items():
        text = "".join(f"{line}\n" for line in content) if isinstance(content, list) else json.dumps(content)
        (folder / name).write_text(text)
    size = 10**6 if row["file"] else 1
    tiny = read_checkpoint(DATA / "tiny-bert")
    encoder = replace(tiny.encoder_config, vocab_size=size)
    return replace(tiny, transformer=folder, config=config, encoder_config=encoder, tokenizer_config=settings)


def lowered(row: dict[str, Any]) -> bool:
    """Whether tokenizer.json has the step that sentence-transformers' do_lower_case leaves."""
    normalizer = VALUES[row["change"]["normalizer"]] if "normalizer" in row.get("change", {}) else None
    return normalizer is not None and (normalizer.get("normalizers") or [{}])[0].get("type") == "Lowercase"


def flagged(row: dict[str, Any]) -> bool:
    named = str(row["tokenizer_config"].get("tokenizer_class")).removesuffix("Fast")
    return named in ("LlamaTokenizer", "GemmaTokenizer") and bool(FLAGS & row["tokenizer_config"].keys())


def dropped(row: dict[str, Any]) -> bool:
    """Whether transformers 5 drops the table of characters that tokenizer.json has."""
    normalizer = VALUES[row["change"]["normalizer"]] if "normalizer" in row.get("change", {}) else None
    named = row["tokenizer_config"].get("tokenizer_class") == "DebertaV2Tokenizer"
    return named and "Precompiled" in json.dumps(normalizer)


def fits(row: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether transformers 5 takes a class for the file that has its kind of vocabulary."""
    kinds = {"Bert": "WordPiece", "MPNet": "WordPiece", "XLMRoberta": "Unigram", "Roberta": "BPE"}
    kind = kinds.get(str(expected.get("class")).removesuffix("Tokenizer"))
    model = TABLE["files"][row["file"]]["model"]["type"] if row["file"] else None
    return model is None or ((kind is None or kind == model) and "error" not in expected)


def found(checkpoint: Checkpoint) -> dict[str, Any]:
    source = files.read(checkpoint)
    library = source.tokenizer
    pairs = [library.encode(*pair) for pair in TABLE["pairs"]]
    cut = Tokenizer(checkpoint, TABLE["cut"])([TABLE["long"]]).ids[0].tolist()
    cut_pair = PairTokenizer(checkpoint, TABLE["cut"] + 2)([("the wing of", TABLE["long"])])[0][0].tolist()
    return {
        "normalizer": state(library.normalizer) or None,
        "pre_tokenizer": state(library.pre_tokenizer) or None,
        "post_processor": state(library.post_processor) or None,
        "truncation_side": source.truncation_side,
        "token_types": source.token_types,
        "ids": [library.encode(text).ids for text in TABLE["texts"]],
        "pairs": [[pair.ids, pair.type_ids] for pair in pairs],
        "cut": cut,
        "cut_pair": cut_pair,
    }


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_a_row(number: int, tmp_path: Path) -> None:
    row = ROWS[number]
    expected = outcome(row["expect"])
    old = outcome(row["other"][OLD]) if OLD in row.get("other", {}) else expected
    checkpoint = write(tmp_path, row)
    if not row["file"] and "error" in expected:
        with pytest.raises(UnsupportedModelError, match=r"no tokenizer\.json"):
            files.read(checkpoint)
        return
    if expected.get("class") in WARNED:
        with pytest.warns(UserWarning, match=f"by the rules of {expected['class']}, which mlx_embed does not have"):
            files.read(checkpoint)
        return
    if flagged(row) and "bos_token" not in row["tokenizer_config"]:
        with pytest.raises(CheckpointError, match="lacks the special token '<s>'"):
            files.read(checkpoint)
        return
    seen = found(checkpoint)
    keys = ["ids", "pairs", "cut", "cut_pair", "truncation_side"]
    if flagged(row):
        # Version 4 decides on the ends of a text, version 5 on the rest.
        assert [seen["post_processor"][key] for key in ("single", "pair")] == [
            old["post_processor"][key] for key in ("single", "pair")
        ]
        assert seen["normalizer"] == expected["normalizer"]
        if old["normalizer"] == expected["normalizer"]:
            assert {key: seen[key] for key in keys} == {key: old[key] for key in keys}
    elif lowered(row) or dropped(row) or not fits(row, expected):
        if "error" in old:  # neither version makes one: the file is as good as any
            assert seen["ids"] == ids_of_the_file(tmp_path)
        else:
            assert {key: seen[key] for key in keys} == {key: old[key] for key in keys}
        if lowered(row) or dropped(row):
            assert seen["normalizer"] == VALUES[row["change"]["normalizer"]]
    else:
        keys += ["normalizer", "pre_tokenizer"]
        assert {key: seen[key] for key in keys} == {key: expected[key] for key in keys}
        assert seen["token_types"] == ("token_type_ids" in expected["names"])


def ids_of_the_file(folder: Path) -> list[list[int]]:
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [library.encode(text).ids for text in TABLE["texts"]]


def test_the_table_has_each_kind_of_row() -> None:
    """The conditions above sort rows; none of them may sort all away."""
    ordinary = [row for row in ROWS if fits(row, outcome(row["expect"])) and not lowered(row) and not flagged(row)]
    assert len(ordinary) > 300
    assert sum(map(lowered, ROWS)) >= 9
    assert sum(map(flagged, ROWS)) >= 24
    assert sum(map(dropped, ROWS)) >= 1
    assert sum(not fits(row, outcome(row["expect"])) for row in ROWS) >= 6


def test_live_every_class_of_transformers() -> None:
    """Each is known here, as one with rules or without, with token types or without, or as one that reads no file."""
    transformers = pytest.importorskip("transformers", reason="PyTorch oracles are not installed")
    auto = transformers.models.auto.tokenization_auto
    names = {name for name in auto.TOKENIZER_MAPPING_NAMES.values() if name} | {
        f"{name}Tokenizer" for name in classes.CLASSES
    }
    rules, types, python = {}, {}, set()
    for name in sorted(names):
        found, short = auto.tokenizer_class_from_name(name), classes.bare(name)
        if found is None or found.__name__ in ("TokenizersBackend", "MistralCommonBackend"):
            continue
        if not issubclass(found, transformers.TokenizersBackend):
            python.add(short)
            continue
        rules[short] = "__init__" in found.__dict__
        types[short] = "token_type_ids" in found.model_input_names
    known = {name: kind for name, kind in classes.CLASSES.items() if name in types}
    assert {name: kind.token_types for name, kind in known.items()} == {name: types[name] for name in known}
    assert {name for name, own in rules.items() if own} <= classes.CLASSES.keys() | classes._ELSEWHERE
    assert {name for name in types if types[name]} <= classes._TYPED_ELSEWHERE | {
        name for name, kind in classes.CLASSES.items() if kind.token_types
    }
    assert python - classes._PYTHON == set()


@pytest.mark.parametrize("name", ["BertJapaneseTokenizer", "PhobertTokenizerFast"])
def test_a_class_without_tokenizer_json_is_refused(name: str, checkpoint: Path) -> None:
    change(checkpoint, tokenizer_class=name)
    with pytest.raises(UnsupportedModelError, match=f"The tokenizer's class is {name}, which makes its tokens without"):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")


def test_a_warning_blames_the_users_line(checkpoint: Path, recwarn: pytest.WarningsRecorder) -> None:
    change(checkpoint, tokenizer_class="SplinterTokenizer")
    EmbeddingModel.from_pretrained(checkpoint, device="cpu")
    (said,) = recwarn.list
    assert said.filename == __file__


def test_the_repositorys_own_code_is_named(checkpoint: Path) -> None:
    change(checkpoint, auto_map={"AutoTokenizer": ["own.MyTokenizer", None]})
    with pytest.warns(UserWarning, match=r"own code for its tokenizer, \['own.MyTokenizer', None\]"):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")


@pytest.mark.parametrize("key", ["do_lower_case", "tokenize_chinese_chars"])
@pytest.mark.parametrize("value", [None, "false", 0])
def test_a_flag_of_the_wrong_type(key: str, value: Any, checkpoint: Path) -> None:
    change(checkpoint, tokenizer_class="BertTokenizer", **{key: value})
    with pytest.raises(CheckpointError, match=rf'"{key}": {value!r}, where true or false is needed'):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")


def made(folder: Path, file: str, tokenizer_class: str, model_type: str, **change: Any) -> Checkpoint:
    """A folder of one of the table's files, changed: the model's keys by "model", others whole."""
    values = len(VALUES)
    row = {"file": file, "model_type": model_type, "tokenizer_config": {"tokenizer_class": tokenizer_class}}
    VALUES.extend(change.values())
    try:
        return write(folder, row | {"change": dict(zip(change, range(values, len(VALUES)), strict=True))})
    finally:
        del VALUES[values:]


def test_options_of_a_models_file_give_way_to_the_classs(tmp_path: Path) -> None:
    odd = {"dropout": 0.5, "ignore_merges": True, "fuse_unk": True, "byte_fallback": True, "unk_token": "<unk>"}
    checkpoint = made(tmp_path, "roberta", "RobertaTokenizer", "roberta", model=odd)
    model: Any = files.read(checkpoint).tokenizer.model
    assert [getattr(model, name) for name in odd] == [None, False, False, False, None]


def charsmap() -> dict[str, Any]:
    """The table that turns W into w, of a row that has it alone."""
    changes = [VALUES[row["change"]["normalizer"]] for row in ROWS if "normalizer" in row.get("change", {})]
    steps = next(change["normalizers"] for change in changes if len((change or {}).get("normalizers", ())) == 1)
    assert steps[0]["type"] == "Precompiled"
    return steps[0]


@pytest.mark.parametrize("name", ["XLMRobertaTokenizer", "CamembertTokenizer"])
def test_of_a_unigrams_normalizer_the_table_is_kept(name: str, tmp_path: Path) -> None:
    table = charsmap()
    steps = {
        "type": "Sequence",
        "normalizers": [{"type": "NFKC"}, table, {"type": "Replace", "pattern": {"String": "g"}, "content": ""}],
    }
    source = files.read(made(tmp_path, "xlm-roberta", name, "xlm-roberta", normalizer=steps))
    assert state(source.tokenizer.normalizer) == table
    upper, plain = (source.tokenizer.encode(text).tokens for text in ("the Wing", "the wing"))
    assert upper == plain == ["<s>", "▁the", "▁wing", "</s>"]


def test_special_tokens_that_the_vocabulary_lacks(checkpoint: Path) -> None:
    """There are no embeddings for what would be added behind the vocabulary."""
    change(checkpoint, tokenizer_class="BertTokenizer", sep_token="<end>")
    full = read_checkpoint(checkpoint)
    full = replace(full, encoder_config=replace(full.encoder_config, vocab_size=118))
    with pytest.raises(CheckpointError, match="lacks the special token '<end>'"):
        files.read(full)
    blank = replace(full, tokenizer_config={**full.tokenizer_config, "sep_token": "[SEP]", "mask_token": "<blank>"})
    assert files.read(blank).tokenizer.token_to_id("<blank>") is None
    room = replace(blank, encoder_config=replace(full.encoder_config, vocab_size=119))
    assert files.read(room).tokenizer.token_to_id("<blank>") == 118


@pytest.mark.parametrize("name", ["Electra", "LayoutLM", "MobileBert", "SqueezeBert", "Lxmert", "ConvBert"])
def test_rerankers_whose_class_keeps_token_types(name: str, tmp_path: Path) -> None:
    folder = reranker("bert", 1, tmp_path)
    assert CrossEncoder.from_pretrained(folder, device="cpu")._typed
    change(folder, tokenizer_class=f"{name}Tokenizer")
    assert CrossEncoder.from_pretrained(folder, device="cpu")._typed
    change(folder, tokenizer_class="DistilBertTokenizer")
    assert not CrossEncoder.from_pretrained(folder, device="cpu")._typed


def change(folder: Path, **keys: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.fixture(autouse=True)
def _no_warning_that_is_not_expected() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield
