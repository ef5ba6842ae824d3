"""How far long work has come: a bar on a terminal, a line in ten seconds elsewhere, or nothing."""

import time
from collections.abc import Callable
from typing import Any

EVERY = 10.0


def counted(count: int, unit: str) -> str:
    """So many of something in words: "1 text", "2,000 texts"."""
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


class Progress:
    """Told how far work has come; shows nothing.

    Attributes:
        done: texts, or what else is counted.
        within: texts that were embedded within larger steps, such as files, which then are what is counted.
        tokens: that they have, as they are computed.
        cut: texts that were longer than the model takes.
    """

    def __init__(self, done: int = 0) -> None:
        self.done, self.within, self.tokens, self.cut = done, 0, 0, 0

    def __call__(self, count: int) -> None:
        """So many more are done."""
        self.done += count

    def inside(self, texts: int) -> None:
        """So many more texts are embedded, of a step that is not done yet."""
        self.within += texts
        self(0)

    def note(self, tokens: int, cut: int) -> None:
        """So many more tokens are on their way, and so many more texts were cut."""
        self.tokens += tokens
        self.cut += cut

    def close(self) -> None:
        """The work has ended."""

    @property
    def notes(self) -> str:
        """Texts of steps, tokens and cut texts, where there are any, in words."""
        counts = {"text": self.within, "token": self.tokens}
        parts = [counted(count, unit) for unit, count in counts.items() if count]
        return ", ".join([*parts, *[f"{self.cut:,} cut"] * (self.cut > 0)])


class Within(Progress):
    """What is done within larger steps: those are counted, and this is told beside."""

    def __init__(self, steps: Progress) -> None:
        super().__init__()
        self._steps = steps

    def __call__(self, count: int) -> None:
        """So many more are done."""
        self._steps.inside(count)

    def note(self, tokens: int, cut: int) -> None:
        """So many more tokens are on their way, and so many more texts were cut."""
        self._steps.note(tokens, cut)


class Bar(Progress):
    """A bar with the rate, the time that is left, tokens and cut texts; `bar` is tqdm's."""

    def __init__(self, bar: Any) -> None:
        super().__init__()
        self._bar = bar

    def __call__(self, count: int) -> None:
        """So many more are done."""
        super().__call__(count)
        if self.notes:
            self._bar.set_postfix_str(self.notes, refresh=False)
        self._bar.update(count)

    def close(self) -> None:
        """The work has ended."""
        self._bar.close()


class Ticker:
    """Lets a line pass when none has passed for so many seconds."""

    def __init__(
        self, say: Callable[[str], Any], every: float = EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._every, self.clock = say, every, clock
        self._last = clock()

    def offer(self, line: Callable[[], str]) -> None:
        """Say what `line` gives, if it is time for one."""
        if self.clock() - self._last >= self._every:
            self._last = self.clock()
            self._say(line())


class Lines(Progress):
    """A line now and then: how many of how many, the rate, the time that is left, tokens and cut texts."""

    def __init__(self, ticker: Ticker, total: int | None, unit: str, description: str, done: int) -> None:
        super().__init__(done)
        self._ticker, self._total, self._unit, self._description = ticker, total, unit, description
        self._before, self._began = done, ticker.clock()

    def __call__(self, count: int) -> None:
        """So many more are done."""
        super().__call__(count)
        self._ticker.offer(self.line)

    def line(self) -> str:
        """How far it is now."""
        seconds = max(self._ticker.clock() - self._began, 1e-9)
        rate = (self.done - self._before) / seconds
        parts = [counted(self.done, self._unit)]
        if self._total:
            parts = [f"{self.done:,} of {counted(self._total, self._unit)} ({self.done / self._total:.0%})"]
        parts.append(f"{rate:,.0f} {self._unit}s/s" if rate >= 10 else f"{rate:.2f} {self._unit}s/s")
        if self._total and rate > 0:
            parts.append(f"{_spelled(max(self._total - self.done, 0) / rate)} left")
        return f"{self._description}: {', '.join([*parts, *filter(None, [self.notes])])}"


def _spelled(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
