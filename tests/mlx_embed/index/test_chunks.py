"""Chunks: they fit the model, are the file's own bytes, leave nothing out, and end where the text does."""

import random
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import tokenizers

from mlx_embed import EmbeddingModel
from mlx_embed.errors import StoreMismatchError
from mlx_embed.index import chunks, documents
from mlx_embed.index.chunks import Chunker, Chunking, counter
from mlx_embed.index.entries import Chunk
from mlx_embed.texts import WINDOW
from mlx_embed.tokenizer import Tokenizer
from tests.mlx_embed.index.conftest import at_most

DATA = Path(__file__).parents[2] / "data"
ROOT = Path(__file__).parents[3]
Count: TypeAlias = Callable[[Sequence[str]], chunks.Counts]
LETTERS = string.ascii_letters + "äöé中文字\U0001f600ﷺ한\u0301"


def bert() -> Count:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")
    return counter(model, "title: ")


def trained(model: str) -> Count:
    """A tokenizer that looks across spaces: tokens of a whole are not those of its parts."""
    made: Any
    if model == "bpe":
        made = tokenizers.Tokenizer(tokenizers.models.BPE())
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
        trainer: Any = tokenizers.trainers.BpeTrainer(
            vocab_size=600, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
    else:
        made = tokenizers.Tokenizer(tokenizers.models.Unigram())
        made.normalizer = tokenizers.normalizers.NFKC()
        made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        trainer = tokenizers.trainers.UnigramTrainer(
            vocab_size=300, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
        )
    made.train_from_iterator([path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))], trainer)
    return lambda texts: [len(made.encode(text).ids) + 2 for text in texts]


@pytest.fixture(scope="module", params=["bert", "bpe", "unigram"])
def count(request: pytest.FixtureRequest) -> Count:
    return bert() if request.param == "bert" else trained(request.param)


def words(tokens: int, overlap: int = 0) -> Chunker:
    """A chunker that counts words, with two special tokens."""
    return Chunker(Chunking(tokens, overlap), lambda texts: [len(text.split()) + 2 for text in texts])


def cut(chunker: Chunker, text: str, name: str = "a.md") -> list[Chunk]:
    [found] = chunker.chunks([(name, documents.read(Path(name), text.encode()))])
    return found


def strange(chance: random.Random) -> str:
    """A text of words, lines, headings, long runs without a space, and characters of every width."""
    pieces = ["\n", "\n\n", "# Title\n", "## Sub\n", ". ", " ", "\r\n", "\t", "。", "\f", "\u2028", "```\n", "    "]
    out = []
    for _ in range(chance.randrange(1, 100)):
        length = chance.choice([1, 3, 5, 8, 8, 8, 300]) if chance.random() < 0.9 else 2000
        out.append("".join(chance.choices(LETTERS, k=length)) + chance.choice(pieces))
    return "".join(out)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rs", "a.rst"])
def test_chunks_of_anything(count: Count, seed: int, name: str) -> None:
    chance = random.Random(seed)
    text = strange(chance)
    data = text.encode()
    tokens = chance.choice([12, 20, 32])
    overlap = chance.choice([0, 3, tokens // 2])
    found = cut(Chunker(Chunking(tokens, overlap), count), text, name)
    covered = np.zeros(len(data), dtype=bool)
    for number, chunk in enumerate(found):
        assert chunk.ordinal == number
        assert data[chunk.byte_start : chunk.byte_end].decode() == chunk.text
        assert chunk.line_start == 1 + data[: chunk.byte_start].count(b"\n")
        assert chunk.line_end == chunk.line_start + chunk.text.count("\n")
        assert chunk.text.strip()
        assert chunk.text == chunk.text.rstrip()
        covered[chunk.byte_start : chunk.byte_end] = True
    assert not np.frombuffer(data, dtype=np.uint8)[~covered].tobytes().decode().strip()
    starts = [chunk.byte_start for chunk in found]
    assert starts == sorted(set(starts))
    for chunk, tokens_of in zip(found, count([chunk.text for chunk in found]), strict=True):
        assert tokens_of <= tokens or len(chunk.text) == 1
    if overlap == 0:
        assert int(covered.sum()) == sum(chunk.byte_end - chunk.byte_start for chunk in found)


def test_a_short_file_is_one_chunk_and_an_empty_one_none() -> None:
    assert [c.text for c in cut(words(10), "\n\n  # A\n\nsome words  \n\n")] == ["  # A\n\nsome words"]
    assert cut(words(10), " \n\n\t") == []
    assert cut(words(10), "") == []


def test_the_strongest_border_in_the_second_half_is_taken() -> None:
    paragraph = "a b c d.\n\n"
    found = cut(words(12), f"# One\n\n{paragraph}# Two\n\n{paragraph}{paragraph}# Three\n\n{paragraph}")
    assert [(c.text.split("\n")[0], c.heading) for c in found] == [
        ("# One", ("One",)),
        ("# Two", ("Two",)),
        ("# Three", ("Three",)),
    ]
    found = cut(words(9), "a b c d e. f g\nh i. j k l m n\n\no p q r", "a.txt")
    assert [c.text for c in found] == ["a b c d e. f g", "h i. j k l m n", "o p q r"]


def test_tokens_are_those_that_encode_counts() -> None:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")
    texts = ["", "a wing", "x" * 300]
    assert list(counter(model, "title: ")(texts)) == list(model.token_counts(["title: " + text for text in texts]))


def test_a_chunk_stands_under_what_all_of_it_stands_under() -> None:
    text = "# A\n\n## B\n\nb b b\n\n### C\n\nc c c\n\n## D\n\n" + "d d d d.\n\n" * 6
    found = cut(words(14), text)
    assert [c.heading for c in found] == [("A",), *[("A", "D")] * (len(found) - 1)]
    assert len(found) > 2
    assert [c.heading for c in cut(words(14), "## B\n\nb b b\n\n## D\n\nd d d")] == [()]


def test_code_is_cut_between_functions_and_by_lines() -> None:
    body = "".join(f"    x{i} = call({i}). more words here\n" for i in range(3))
    found = cut(words(20), "".join(f"def f{i}():\n{body.replace('. ', ' + ')}\n\n" for i in range(4)), "a.py.rs")
    assert len(found) > 3
    for chunk in found:
        assert chunk.text.startswith(("def", "    "))
    lines = ["begin here", "a line that is no sentence. nor are these two"]
    assert [c.text for c in cut(words(12), "\n".join(lines), "a.rs")] == lines


def test_functions_of_python_are_whole_where_they_fit() -> None:
    source = "".join(f"def f{i}():\n    a = {i}\n\n    return a + b + c\n\n\n" for i in range(6))
    found = cut(words(16, overlap=4), source, "a.py")
    assert [c.heading for c in found] == [(f"def f{i}",) for i in range(6)]
    assert all(c.text.endswith("return a + b + c") for c in found)


def test_overlap_repeats_whole_sentences_and_never_across_headings() -> None:
    sentences = [f"This is sentence {n}." for n in range(12)]
    found = cut(words(14, overlap=4), " ".join(sentences))
    assert [c.text for c in found] == [" ".join(sentences[n : n + 3]) for n in range(0, 12, 2)]
    found = cut(words(10, overlap=5), "# A\n\na a a a. b b.\n\n# B\n\nc c c c. d d.\n")
    assert [c.text for c in found] == ["# A\n\na a a a. b b.", "# B\n\nc c c c. d d."]


def test_a_word_without_end_is_cut() -> None:
    """WordPiece makes one token of a word of any length: it would be a chunk of a megabyte."""
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")
    found = cut(Chunker(Chunking(16, 0), counter(model, "")), "x" * 100_000)
    assert max(len(c.text) for c in found) <= chunks.CHARACTERS * 16
    assert "".join(c.text for c in found) == "x" * 100_000


def test_a_long_line_is_tokenized_some_words_at_a_time(
    tiny_bert: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizers library has a thousand bytes and more for each text that it is given at once."""
    tokenizer = tiny_bert.tokenizer
    given: list[tuple[int, int]] = []

    def encode(texts: list[str], prompt: str) -> Any:
        given.append((len(texts), max(map(len, texts))))
        return Tokenizer.encode(tokenizer, texts, prompt)

    monkeypatch.setattr(tokenizer, "encode", encode, raising=False)
    chunker = Chunker(Chunking(16, 0), counter(tiny_bert, ""))
    text = "wing " * 30_000
    found = chunker.spans([documents.Document(text, documents.FilePlaces(text))])[0]
    assert sum(text[start:end].count("wing") for start, end in found) == 30_000
    assert max(count for count, _ in given) <= WINDOW
    assert max(longest for _, longest in given) <= 17 * chunks.CHARACTERS, "what is too long anyway is not tokenized"


@pytest.mark.parametrize("end", ["", " the end.", '." The end'])
def test_a_run_of_dots_takes_no_time(end: str) -> None:
    text = "Contents" + "." * 200_000 + end
    with at_most(seconds=20):
        found = cut(words(16), text, "a.txt")
    assert "".join(c.text for c in found).replace(" ", "") == text.replace(" ", "")


def test_rows_have_chunks_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "text": "a b c d e f. g h i j k"}\n{"id": 2, "text": ""}\n{"id": 3, "text": "z"}\n')
    [found] = words(8).chunks([("a.jsonl", documents.read(path, path.read_bytes()))])
    assert [(c.text, c.metadata, c.line_start, c.ordinal) for c in found] == [
        ("a b c d e f.", {"id": 1}, 1, 0),
        ("g h i j k", {"id": 1}, 1, 1),
        ("z", {"id": 3}, 3, 2),
    ]


def test_many_files_at_once_are_as_each_alone() -> None:
    paths = sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "mlx_embed" / "index").glob("*.py"))
    files = [(path.name, documents.read(path, path.read_bytes())) for path in paths]
    together = words(60, 8).chunks(files)
    assert [words(60, 8).chunks([file])[0] for file in files] == together
    assert sum(map(len, together)) > 50


def test_the_name_of_a_chunking_gives_it_back() -> None:
    chunking = Chunking(200, 20, ("title", "text"))
    assert Chunking.of(chunking.name) == chunking
    for other in ("", "[]", "1", chunking.name.replace(": 1", ": 2"), '{"version": 1}'):
        with pytest.raises(StoreMismatchError, match="into a new folder"):
            Chunking.of(other)


def test_what_no_chunking_can_be(tiny_bert: EmbeddingModel) -> None:
    longest = tiny_bert.max_seq_length
    assert Chunking.checked(tiny_bert).tokens == min(chunks.DEFAULT_TOKENS, longest)
    with pytest.raises(ValueError, match=f"longer than the model takes, {longest}"):
        Chunking.checked(tiny_bert, longest + 1)
    with pytest.raises(ValueError, match=r"overlap of 11 is not within 0\.\.10"):
        Chunking.checked(tiny_bert, 20, 11)
    with pytest.raises(ValueError, match="tokens 0"):
        Chunking.checked(tiny_bert, 0)
    with pytest.raises(TypeError, match="overlap"):
        Chunking.checked(tiny_bert, 20, 1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no room for text"):
        cut(words(2), "a")
