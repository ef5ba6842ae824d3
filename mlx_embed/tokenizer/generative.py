"""Pairs of texts to token ids, as rerankers take them that are asked in a form: they answer with a token, mostly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import tokenizers

from mlx_embed.checkpoint import Checkpoint
from mlx_embed.checkpoint.logit_score import Chat, LogitScore
from mlx_embed.errors import CheckpointError, UnsupportedModelError
from mlx_embed.ids import Ids
from mlx_embed.tokenizer import files
from mlx_embed.tokenizer.chat import renderer
from mlx_embed.tokenizer.panics import is_the_librarys
from mlx_embed.tokenizer.surrogates import well_formed

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class Recipe:
    """How the authors of a model ask it, where its folder does not say.

    Attributes:
        head: text before the pair, which is never cut.
        body: what is cut, tokenized piece by piece: {prompt}, {query} and {document} are filled in.
        tail: text behind it, piece by piece, which is never cut.
        prompt: the one where none is given.
        answers: the token that means yes, and the one that means no, if its logit is subtracted.
    """

    head: str
    body: tuple[str, ...]
    tail: tuple[str, ...]
    prompt: str
    answers: tuple[str, ...]


_QWEN3 = Recipe(
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
    ("<Instruct>: {prompt}\n<Query>: {query}\n<Document>: {document}",),
    ("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
    "Given a web search query, retrieve relevant passages that answer the query",
    ("yes", "no"),
)
_QWEN2 = Recipe(
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n",
    ("{prompt}query: {query}", "\n", "document: {document}"),
    (
        "\n",
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    "",
    ("1", "0"),
)
_GEMMA = Recipe(
    "<bos>",
    ("A: {query}", "\n", "B: {document}"),
    ("\n", "{prompt}"),
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'.",
    ("Yes",),
)
# By model_type: Qwen3-Reranker, mxbai-rerank-v2 and bge-reranker-v2-gemma.
RECIPES = {"gemma": _GEMMA, "qwen2": _QWEN2, "qwen3": _QWEN3}


def has_form(checkpoint: Checkpoint) -> bool:
    """Whether a reranker is asked in a form of its own: else it is given pairs as most are.

    A classifier that has but the chat template of its base model was not trained with that.
    """
    chat = checkpoint.chat
    return _recipe(checkpoint) is not None or (chat is not None and (checkpoint.generates or chat.for_pairs))


def answers(checkpoint: Checkpoint, library: tokenizers.Tokenizer) -> LogitScore:
    """The tokens with which a causal reranker answers.

    Raises:
        CheckpointError: its tokenizer does not have them.
    """
    if checkpoint.score is not None:
        return checkpoint.score
    recipe = _recipe(checkpoint)
    ids: list[int] = []
    for name in recipe.answers if recipe else ("yes", "no"):
        token = library.token_to_id(name)
        if token is None:
            raise CheckpointError(
                f"{checkpoint.transformer} has no token {name!r}, with which a causal reranker answers, and "
                "no module LogitScore that names other tokens."
            )
        ids.append(token)
    return LogitScore(*ids)


def _recipe(checkpoint: Checkpoint) -> Recipe | None:
    bare = checkpoint.generates and checkpoint.score is None
    return RECIPES.get(str(checkpoint.config["model_type"])) if bare else None


class GenerativeTokenizer:
    """The tokenizer of a reranker that is asked in a form, in which pairs are put, and cut within the pair.

    Attributes:
        max_length: tokens at which what is asked is cut.
        token_types: False, since a form is one text.
        cut_left: whether texts lose their beginnings rather than their ends.
    """

    token_types = False

    def __init__(self, checkpoint: Checkpoint, max_length: int) -> None:
        """Read the tokenizer's files and the chat template, of a checkpoint that `has_form`.

        Raises:
            CheckpointError: files or tokens that are missing, a length that leaves no room, or a template that leaves
                out one of a pair's texts.
            UnsupportedModelError: several templates by name; Jinja is needed and not installed.
        """
        source = files.read(checkpoint)
        self.max_length = max_length
        self._tokenizer = source.tokenizer
        self._folder = checkpoint.transformer
        self._recipe = _recipe(checkpoint)
        self._chat = checkpoint.chat if self._recipe is None else None
        self._render: Callable[[Any], str] | None = None
        if self._chat is not None:
            if self._chat.several:
                raise UnsupportedModelError(
                    f"{self._folder} has several chat templates by name, and mlx_embed takes one: put that for pairs "
                    "into chat_template.jinja."
                )
            config = checkpoint.tokenizer_config
            special = {role: _text(config[role]) for role in _ROLES if config.get(role) is not None}
            self._render = renderer(self._chat.template, {**special, **self._chat.arguments})
        self.cut_left = source.truncation_side == "left"
        self([("a", "b")])  # a broken template fails here rather than at the first question
        if self._chat is not None:
            one, *others = (self._rendered(self._chat, *pair, "") for pair in (("a", "b"), ("c", "b"), ("a", "c")))
            if one in others:
                raise CheckpointError(
                    f"The chat template of {self._folder} leaves out one of a pair's texts, which are of the roles "
                    "query and document: put one there that has both."
                )

    def beside(self, prompt: str) -> int:
        """How many tokens there are with a pair that are not of its texts."""
        return len(self([("", "")], prompt)[0][0])

    def beginning(self, text: str, tokens: int) -> str:
        """As `Tokenizer.beginning`: the text itself, since a form is read as a whole."""
        return text

    @property
    def library(self) -> tokenizers.Tokenizer:
        """The library's own tokenizer, which cuts nothing."""
        return self._tokenizer

    def __call__(self, pairs: Sequence[tuple[str, str]], prompt: str = "") -> tuple[Ids, Ids]:
        """The token ids of each pair, and types, which are all 0."""
        if self._recipe is not None:
            rows = self._by_recipe(self._recipe, pairs, prompt)
        else:
            assert self._chat is not None
            rows = self._by_chat(self._chat, pairs, prompt)
        return Ids.of(rows), Ids.of([[0] * len(row) for row in rows])

    def _by_recipe(self, recipe: Recipe, pairs: Sequence[tuple[str, str]], prompt: str) -> list[list[int]]:
        if recipe is _QWEN2 and prompt:
            prompt = f"instruction: {prompt}\n"
        prompt = prompt or recipe.prompt
        head, *ends = self._ids([recipe.head, *(x.format(prompt=prompt) for x in recipe.tail)])
        tail = list(chain(*ends))
        room = self.max_length - len(head) - len(tail)
        if room < 1:
            raise CheckpointError(
                f"A maximum of {self.max_length} tokens leaves no room for texts beside the {len(head) + len(tail)} "
                "of the question."
            )
        pieces = [
            piece.format(prompt=prompt, query=query, document=document)
            for query, document in pairs
            for piece in recipe.body
        ]
        encoded, count = list(map(self._cut, self._ids(pieces))), len(recipe.body)
        bodies = [list(chain(*encoded[i : i + count])) for i in range(0, len(encoded), count)]
        return [[*head, *body[:room], *tail] for body in bodies]

    def _by_chat(self, chat: Chat, pairs: Sequence[tuple[str, str]], prompt: str) -> list[list[int]]:
        rows, end = [], None
        for ids in self._ids([self._rendered(chat, query, document, prompt) for query, document in pairs]):
            row = self._cut(ids)
            if len(row) < len(ids) and not self.cut_left:  # whose end is there
                end = self._end(chat, prompt)[-self.max_length :] if end is None else end
                row[len(row) - len(end) :] = end
            rows.append(row)
        return rows

    def _rendered(self, chat: Chat, query: str, document: str, prompt: str) -> str:
        def message(role: str, text: str) -> dict[str, Any]:
            return {"role": role, "content": [{"type": "text", "text": text}] if chat.parts else text}

        assert self._render is not None
        system = [message("system", prompt)] if prompt else []
        return self._render([*system, message("query", query), message("document", document)])

    def _end(self, chat: Chat, prompt: str) -> list[int]:
        """The tokens that the template puts behind the texts: those in which two chats of other texts agree."""
        if not chat.keep_end:
            return []
        texts = [self._rendered(chat, text, text, prompt) for text in ("0", "1 2 3 4")]
        one, other = self._ids(texts)
        same = 0
        while same < min(len(one), len(other)) and one[-1 - same] == other[-1 - same]:
            same += 1
        return one[len(one) - same :] if 0 < same < min(len(one), len(other)) else []

    def _cut(self, ids: list[int]) -> list[int]:
        return ids[-self.max_length :] if self.cut_left else ids[: self.max_length]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Of whole texts. The library says in some releases (0.23.1 and 0.23.2) only in part what it has cut."""
        try:
            encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:  # a lone surrogate, which UTF-8 cannot carry
            encoded = self._tokenizer.encode_batch_fast(list(map(well_formed, texts)), add_special_tokens=False)
        except BaseException as error:
            if not is_the_librarys(error):
                raise
            raise CheckpointError(f"The tokenizer of {self._folder} is broken: {error}.") from error
        return [encoding.ids for encoding in encoded]


def _text(token: Any) -> str:
    """A special token of tokenizer_config.json, which may be an object."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)
