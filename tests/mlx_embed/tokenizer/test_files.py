"""Tokenizers of vocabulary files: against the same checkpoint's tokenizer.json, and live against transformers."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer, Tokenizer

from mlx_embed import CheckpointError, CrossEncoder, EmbeddingModel, UnsupportedModelError, convert
from mlx_embed.checkpoint import read_checkpoint
from mlx_embed.tokenizer import files
from tests.checkpoints import reranker
from tests.conftest import DATA

WORDS = [
    "the",
    "wing",
    "flow",
    "of",
    "heat",
    "boundary",
    "layer",
    "speed",
    "index",
    "text",
    "vector",
    "model",
    "query",
    "note",
    "code",
    ".",
    ",",
    "Naïve",
    "CAFÉ",
    "日本",
]
CORPUS = [" ".join(np.random.default_rng(i).choice(WORDS, size=12)) for i in range(200)]
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TEXTS = [
    "",
    "the wing",
    "  two  spaces \n\t",
    "Naïve CAFÉ ÅNGSTRÖM İ ß",
    "日本語 한국어",
    "[SEP] a [MASK]b [UNK] [CLS][PAD]",
    "a <mask>b</s> <s> <unk><pad>",
    "x" * 150,
    "\U0001f600 e\u0301 \u00ad\u200b\ufffd\0",
    "don't 1,000.5 -- #tag",
    "an <added> one, <Added>",
]
KINDS = {"bert": "[MASK]", "distilbert": "[MASK]", "mpnet": "<mask>", "roberta": "<mask>"}


def write_vocabulary(kind: str, folder: Path, source: Path | None = None, **config: Any) -> Path:
    """A folder with config.json, tokenizer_config.json and vocabulary files."""
    folder.mkdir(exist_ok=True)
    name = {"bert": "Bert", "distilbert": "DistilBert", "mpnet": "MPNet", "roberta": "Roberta"}[kind]
    if kind == "roberta":
        model = ByteLevelBPETokenizer()
        model.train_from_iterator(CORPUS, vocab_size=400, special_tokens=SPECIALS, show_progress=False)
        model.save_model(str(folder))
    else:
        source = source or DATA / ("tiny-mpnet" if kind == "mpnet" else "tiny-bert")
        ids = Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab()
        tokens = {i: token for token, i in ids.items()}
        # As many as the tiny checkpoints have embeddings.
        lines = [tokens.get(i, f"[unused{i}]") for i in range(max(120, max(tokens) + 1))]
        (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in lines))
    place = {"bert": "tiny-bert", "mpnet": "tiny-mpnet"}.get(kind, f"encoders/{kind}")
    shutil.copy(DATA / place / "config.json", folder)
    settings = {"tokenizer_class": f"{name}Tokenizer"} | config
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    return folder


def build(folder: Path) -> Tokenizer:
    return files.read(read_checkpoint(folder)).tokenizer


def ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_the_ids_of_tokenizer_json(kind: str, tmp_path: Path) -> None:
    expected = Tokenizer.from_file(str(DATA / f"tiny-{kind}" / "tokenizer.json"))
    expected.no_padding()
    expected.no_truncation()
    found = build(write_vocabulary(kind, tmp_path))
    texts = [text for text in TEXTS if "[" not in text and "<" not in text]
    assert ids(found, [*texts, *CORPUS]) == ids(expected, [*texts, *CORPUS])


def test_the_ids_of_minilm(minilm_path: Path, tmp_path: Path) -> None:
    expected = Tokenizer.from_file(str(minilm_path / "tokenizer.json"))
    expected.no_padding()
    expected.no_truncation()
    found = build(write_vocabulary("bert", tmp_path, minilm_path))
    assert ids(found, [*TEXTS, *CORPUS]) == ids(expected, [*TEXTS, *CORPUS])
    pairs = [("the wing", "a flow"), ("", "x")]
    assert [x.type_ids for x in found.encode_batch(pairs)] == [x.type_ids for x in expected.encode_batch(pairs)]


CONFIGS: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in KINDS),
    ("bert", {"do_lower_case": False}),
    ("bert", {"do_lower_case": False, "strip_accents": True}),
    ("bert", {"strip_accents": False, "tokenize_chinese_chars": False}),
    ("bert", {"tokenizer_class": "BertTokenizerFast"}),
    ("bert", {"tokenizer_class": None}),
    ("mpnet", {"tokenizer_class": None, "do_lower_case": False}),
    ("roberta", {"tokenizer_class": None}),
    ("bert", {"mask_token": "wing", "pad_token": "code"}),
    ("bert", {"mask_token": {"content": "[MASK]", "lstrip": True, "__type": "AddedToken", "normalized": False}}),
    ("roberta", {"add_prefix_space": True}),
    ("bert", {"added_tokens_decoder": {"5": {"content": "the", "special": False, "single_word": True}}}),
]


def live(folder: Path) -> Any:
    transformers = pytest.importorskip(
        "transformers", reason='PyTorch oracles are not installed: pip install ".[oracles]"'
    )
    return transformers.AutoTokenizer.from_pretrained(folder)


def added(kind: str, folder: Path, **flags: bool) -> Path:
    """A folder with a token behind the vocabulary, as `save_pretrained` notes it."""
    write_vocabulary(kind, folder)
    size = build(folder).get_vocab_size()
    value = {"content": "<added>", "lstrip": False, "rstrip": False, "single_word": False, "normalized": True}
    path = folder / "tokenizer_config.json"
    decoder = {"added_tokens_decoder": {str(size): value | {"special": False} | flags}}
    path.write_text(json.dumps(json.loads(path.read_text()) | decoder))
    return folder


@pytest.mark.parametrize(("kind", "config"), CONFIGS, ids=str)
def test_live(kind: str, config: dict[str, Any], tmp_path: Path) -> None:
    folder = write_vocabulary(kind, tmp_path, **config)
    expected, found = live(folder), build(folder)
    assert ids(found, [*TEXTS, *CORPUS]) == expected([*TEXTS, *CORPUS])["input_ids"]
    pairs = [("the wing", "a flow"), ("", "x"), ("", "")]
    encoded = expected(pairs)
    assert [x.ids for x in found.encode_batch(pairs)] == encoded["input_ids"]
    if kind == "bert":
        assert [x.type_ids for x in found.encode_batch(pairs)] == encoded["token_type_ids"]


@pytest.mark.parametrize("flags", [{}, {"special": True, "normalized": False}, {"lstrip": True, "rstrip": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_live_added_tokens(kind: str, flags: dict[str, bool], tmp_path: Path) -> None:
    folder = added(kind, tmp_path, **flags)
    found = ids(build(folder), TEXTS)
    assert found == live(folder)(TEXTS)["input_ids"]
    assert build(folder).token_to_id("<added>") in found[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_live_any_text(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = write_vocabulary(kind, tmp_path_factory.mktemp(kind))
    expected, found = live(folder), build(folder)
    mask = KINDS[kind]

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.one_of(st.sampled_from([*WORDS, mask, " ", "##a"]), st.text(max_size=8)), max_size=8))
    @example([mask, " ", mask])
    def check(parts: list[str]) -> None:
        text = "".join(parts).encode("utf-8", "replace").decode()
        assert found.encode(text).ids == expected(text)["input_ids"]

    check()


def test_a_model_loads_and_converts(checkpoint: Path, tmp_path: Path) -> None:
    expected = EmbeddingModel.from_pretrained(checkpoint, device="cpu").encode(CORPUS[:5])
    (checkpoint / "tokenizer.json").unlink()
    source = write_vocabulary("bert", tmp_path / "files")
    for file in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(source / file, checkpoint)
    assert np.array_equal(EmbeddingModel.from_pretrained(checkpoint, device="cpu").encode(CORPUS[:5]), expected)
    convert(checkpoint, tmp_path / "converted")
    converted = EmbeddingModel.from_pretrained(tmp_path / "converted", device="cpu")
    assert np.array_equal(converted.encode(CORPUS[:5]), expected)


def test_a_reranker(tmp_path: Path) -> None:
    pairs = [(a, b) for a, b in zip(TEXTS, CORPUS, strict=False)]
    folder = reranker("bert", 1, tmp_path / "reranker")
    scores = CrossEncoder.from_pretrained(folder, device="cpu").predict(pairs)
    (folder / "tokenizer.json").unlink()
    shutil.copy(write_vocabulary("bert", tmp_path / "files") / "vocab.txt", folder)
    assert np.array_equal(CrossEncoder.from_pretrained(folder, device="cpu").predict(pairs), scores)


def test_special_tokens_map(tmp_path: Path) -> None:
    folder = write_vocabulary("bert", tmp_path)
    text = (folder / "vocab.txt").read_text()
    (folder / "vocab.txt").write_text(text.replace("[CLS]", "<first>"))
    with pytest.raises(CheckpointError, match=r"The vocabulary of .* lacks \[CLS\]"):
        build(folder)
    (folder / "special_tokens_map.json").write_text('{"cls_token": "<first>"}')
    assert build(folder).encode("").tokens == ["<first>", "[SEP]"]


@pytest.mark.parametrize(
    ("kind", "config", "error", "message"),
    [
        ("bert", {"tokenizer_class": "BertJapaneseTokenizer"}, UnsupportedModelError, "not BertJapaneseTokenizer"),
        ("bert", {"tokenizer_class": "XLMRobertaTokenizer"}, UnsupportedModelError, r"make a tokenizer\.json: AutoTok"),
        ("bert", {"tokenizer_class": "PreTrainedTokenizerFast"}, UnsupportedModelError, "not PreTrainedTokenizerFast"),
        ("bert", {"tokenizer_class": "RobertaTokenizer"}, CheckpointError, r"nor vocab\.json with merges\.txt"),
        ("roberta", {"tokenizer_class": "BertTokenizer"}, CheckpointError, r"neither tokenizer\.json nor vocab\.txt"),
        ("bert", {"mask_token": 3}, CheckpointError, 'the token 3: text, or "content", is needed'),
        ("bert", {"mask_token": {"special": True}}, CheckpointError, 'text, or "content", is needed'),
        ("bert", {"mask_token": "<absent>"}, CheckpointError, r"The vocabulary of .* lacks <absent>"),
        ("bert", {"do_lower_case": "yes"}, CheckpointError, "\"do_lower_case\": 'yes', where true or false is needed"),
        ("mpnet", {"do_lower_case": 1}, CheckpointError, '"do_lower_case": 1, where true'),
        ("bert", {"strip_accents": []}, CheckpointError, '"strip_accents": .., where true or false is needed'),
        ("roberta", {"add_prefix_space": 3}, CheckpointError, '"add_prefix_space": 3, where true or false is needed'),
        (
            "bert",
            {"additional_special_tokens": "<x>"},
            CheckpointError,
            "\"extra_special_tokens\": '<x>', where a list",
        ),
        ("bert", {"truncation_side": "top"}, CheckpointError, "\"truncation_side\": 'top'"),
        ("bert", {"tokenizer_class": ["BertTokenizer"]}, CheckpointError, '"tokenizer_class": .*, where a name'),
        ("bert", {"added_tokens_decoder": [1]}, CheckpointError, "no object from ids to tokens"),
        ("bert", {"added_tokens_decoder": {"a": {}}}, CheckpointError, "no object from ids to tokens"),
        ("bert", {"added_tokens_decoder": {"1": 3}}, CheckpointError, 'text, or "content", is needed'),
        (
            "bert",
            {"added_tokens_decoder": {"9999": {"content": "<x>"}}},
            CheckpointError,
            "the id 9999, which it cannot",
        ),
    ],
)
def test_bad_settings(kind: str, config: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        build(write_vocabulary(kind, tmp_path, **config))


@pytest.mark.parametrize(
    ("kind", "file", "content"),
    [
        ("bert", "vocab.txt", b"\xff\xfe"),
        ("roberta", "vocab.json", b"[]"),
        ("roberta", "vocab.json", b'{"a": -1}'),
        ("roberta", "vocab.json", b"{"),
        ("roberta", "merges.txt", b"#version: 0.2\na\n"),
        ("roberta", "merges.txt", b"#version: 0.2\nno such\n"),
    ],
)
def test_broken_vocabularies(kind: str, file: str, content: bytes, tmp_path: Path) -> None:
    folder = write_vocabulary(kind, tmp_path)
    (folder / file).write_bytes(content)
    with pytest.raises(CheckpointError, match="a vocabulary that cannot be read"):
        build(folder)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "mpnet"])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: lines[:-1], "has 119 tokens, but config.json gives the model 120 embeddings: lines are missing"),
        (lambda lines: lines[:40] + lines[41:], "has 119 tokens, but config.json gives the model 120 embeddings"),
        (lambda lines: [*lines[:40], "", *lines[41:]], r"vocab\.txt has no token in line 41; download it again"),
        (lambda lines: [*lines[:40], lines[50], *lines[41:]], r"vocab\.txt has '.*' in line 41 and in line 51"),
    ],
    ids=["cut off", "a line lost", "a hole", "a token twice"],
)
def test_a_vocabulary_with_missing_lines(
    kind: str, edit: Callable[[list[str]], list[str]], message: str, tmp_path: Path
) -> None:
    path = write_vocabulary(kind, tmp_path) / "vocab.txt"
    build(tmp_path)
    path.write_text("".join(f"{line}\n" for line in edit(path.read_text().splitlines())))
    with pytest.raises(CheckpointError, match=message):
        build(tmp_path)


def test_tokens_may_be_added_to_a_vocabulary_up_to_the_embeddings(tmp_path: Path) -> None:
    folder = added("bert", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 121}))
    assert build(folder).get_vocab_size() == 121
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 122}))
    with pytest.raises(CheckpointError, match=r"has 121 tokens, but config\.json gives the model 122 embeddings"):
        build(folder)


@pytest.mark.parametrize("file", ["vocab.txt", "special_tokens_map.json", "added_tokens.json"])
def test_a_link_to_nothing_is_a_missing_file(file: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_vocabulary("bert", tmp_path))
    (tmp_path / file).unlink(missing_ok=True)
    (tmp_path / file).symlink_to("../blobs/0123")
    with pytest.raises(CheckpointError, match=rf"{re.escape(file)} is a link to \.\./blobs/0123, which is missing"):
        files.read(checkpoint)


def test_sentencepiece_is_refused(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "sentencepiece.bpe.model").write_bytes(b"\x0a")
    config = json.loads((checkpoint / "config.json").read_text()) | {"model_type": "xlm-roberta"}
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match=r"AutoTokenizer\.from_pretrained\(.*\)\.save_pretrained"):
        EmbeddingModel.from_pretrained(checkpoint, device="cpu")
