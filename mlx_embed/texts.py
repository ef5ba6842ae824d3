"""What a caller may give: checked, read in windows, computed a window ahead, and with a bar."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from mlx_embed.arguments import type_name
from mlx_embed.progress import Bar, Lines, Progress, Ticker, Within

logger = logging.getLogger("mlx_embed")

# Texts are read, tokenized and sorted by length so many at a time; the first window is small, so that the device
# starts early. While one window runs, the next is tokenized.
FIRST_WINDOW = 512
WINDOW = 2048
WINDOW_CHARACTERS = 2**23
# Texts, and their characters, of a call that stays on one thread.
FEW, SHORT = 8, 4096


class Closing(Protocol):
    """Work that has begun, and may be stopped."""

    def close(self) -> None:
        """Stop it."""
        ...


Item = TypeVar("Item")
Begun = TypeVar("Begun", bound=Closing)


def checked(texts: Iterable[str], method: str = "encode") -> Iterable[str]:
    """The texts given to `method`, a list or tuple checked at once, another iterable as it is read.

    Raises:
        TypeError: no iterable, a mapping or a table, or something in it that is no string; its index is named.
    """
    check_iterable(method, "a string or an iterable of strings", texts)
    if isinstance(texts, (list, tuple)):
        for index, text in enumerate(texts):
            _check(index, text)
        return texts
    return _checking(texts)


def check_iterable(method: str, needed: str, given: Any, column: str = "frame['text']") -> None:
    """Refuse what `method` cannot iterate over: `needed` says what it takes, `column` what to pass of a table.

    A mapping gives its keys when it is iterated over, and a table (of pandas, polars, pyarrow or datasets) the names of
    its columns or rows that are mappings: none of these is what its owner means.

    Raises:
        TypeError: no iterable, bytes, a mapping or a table.
    """
    name = type(given).__name__
    kind = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    if isinstance(given, Mapping):
        raise TypeError(f"{method} takes {needed}, got {kind}: pass its values, list(given.values()) for example.")
    if hasattr(given, "columns") or hasattr(given, "column_names"):
        raise TypeError(f"{method} takes {needed}, got {kind}: pass a part of it, {column} for example.")
    # An array without dimensions has an __iter__ that cannot be called.
    if isinstance(given, (bytes, bytearray)) or not hasattr(given, "__iter__") or getattr(given, "ndim", 1) == 0:
        raise TypeError(f"{method} takes {needed}, got {kind}.")


def are_short(texts: Any) -> bool:
    """Whether they are so few and short that handing them from thread to thread would take as long as computing."""
    if isinstance(texts, (list, tuple)):
        return len(texts) <= FEW and sum(len(text) if isinstance(text, str) else SHORT for text in texts) < SHORT
    return isinstance(texts, str) and len(texts) < SHORT


def windows(items: Iterable[Item], characters: Callable[[Item], int], first: int | None = None) -> Iterator[list[Item]]:
    """Cut an iterable into lists of at most WINDOW items, or WINDOW_CHARACTERS, as `characters` counts each item's.

    The first has at most `first` items; None is FIRST_WINDOW.
    """
    window: list[Item] = []
    size, total = FIRST_WINDOW if first is None else first, 0
    for item in items:
        window.append(item)
        total += characters(item)
        if len(window) == size or total >= WINDOW_CHARACTERS:
            yield window
            window, size, total = [], WINDOW, 0
    if window:
        yield window


def begun_ahead(works: Iterable[Begun], ahead: int) -> Generator[Begun, None, None]:
    """Each of `works`, once so many after it have begun, which taking them from the iterable does.

    Closing this generator, or an error, closes what has begun.
    """
    begun: deque[Begun] = deque()
    try:
        for work in works:
            begun.append(work)
            if len(begun) > ahead:
                yield begun[0]
                begun.popleft()
        while begun:
            yield begun[0]
            begun.popleft()
    finally:
        for work in begun:
            work.close()


# What the outermost `progress` shows: what runs inside it advances that one, and shows none of its own.
_outer: ContextVar[Progress | None] = ContextVar("_outer", default=None)
# Says a line now and then, where a command runs whose stderr is no terminal.
_ticker: ContextVar[Ticker | None] = ContextVar("_ticker", default=None)
# Seconds: what is done sooner needs no bar.
BAR_AFTER = 2.0


def watched() -> bool:
    """Whether somebody sees how far work has come without having asked for it at a call."""
    return _ticker.get() is not None or logger.isEnabledFor(logging.INFO)


@contextmanager
def in_lines(ticker: Ticker) -> Iterator[None]:
    """Meanwhile `progress` shows lines, as the ticker lets them pass, in place of bars."""
    token = _ticker.set(ticker)
    try:
        yield
    finally:
        _ticker.reset(token)


@contextmanager
def advancing(outer: Progress) -> Iterator[None]:
    """Meanwhile `progress` shows nothing of its own, and what it gives is this."""
    token = _outer.set(outer)
    try:
        yield
    finally:
        _outer.reset(token)


@contextmanager
def progress(
    show: bool | None,
    total: int | None,
    unit: str = "text",
    *,
    description: str = "Encoding",
    done: int = 0,
    steps: bool = False,
) -> Iterator[Progress]:
    """A bar over texts, lines in its place (see `in_lines`), or nothing; gives what advances it.

    None shows a bar where mlx_embed logs at INFO, as its commands do on a terminal, and only for what takes longer than
    BAR_AFTER. `done` have been done before. `steps` says that it counts no texts: those that are embedded
    meanwhile are told beside.
    """
    if (outer := _outer.get()) is not None:
        yield outer
        return
    if not (watched() if show is None else show):
        yield Progress()
        return
    shown: Progress
    if show is None and (ticker := _ticker.get()) is not None:
        shown = Lines(ticker, total, unit, description, done)
    else:
        from tqdm.auto import tqdm

        delay = BAR_AFTER if show is None else 0
        # Shown again where nothing is counted too: texts within a step go on.
        shown = Bar(tqdm(total=total, unit=unit, desc=description, initial=done, delay=delay, miniters=0))
    try:
        with advancing(Within(shown) if steps else shown):
            yield shown
    finally:
        shown.close()


def _checking(texts: Iterable[str]) -> Iterator[str]:
    for index, text in enumerate(texts):
        _check(index, text)
        yield text


def _check(index: int, text: Any) -> None:
    if not isinstance(text, str):
        raise TypeError(f"texts[{index}] is {type_name(text)}, where a string is needed.")
