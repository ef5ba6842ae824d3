"""The `mlx-embed` command: it finds the commands in `mlx_embed.commands`, and runs the one that is asked for."""

import argparse
import errno
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pkgutil import iter_modules
from typing import cast

from mlx_embed import TruncationWarning, __version__, commands
from mlx_embed.commands import Command
from mlx_embed.errors import MLXEmbedError
from mlx_embed.progress import Ticker
from mlx_embed.terminal import passage
from mlx_embed.texts import in_lines

# As a shell reports a program that SIGINT or SIGPIPE has ended.
INTERRUPTED, READER_GONE = 130, 141
# Of a disk, or of what one user may have of it. Python names no file where it is written to.
FULL = (errno.ENOSPC, errno.EDQUOT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 on success, 1 where a check failed, 2 where the arguments, a model or the machine are at fault.
    """
    _open_closed_streams()
    _name_what_cannot_be_shown()
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        _drop_what_nobody_reads()


def _main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="mlx-embed", description="Text embeddings on MLX.")
    parser.add_argument("--version", action="version", version=f"mlx-embed {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    found, parsers = find(), {}
    for name, command in found.items():
        about = (command.__doc__ or name).strip().splitlines()[0]  # python -OO leaves docstrings out
        parsers[name] = subparsers.add_parser(name, help=about, description=about)
        command.add(parsers[name])
    try:
        options, unknown = parser.parse_known_args(arguments)
        if unknown:  # said with the usage of the command: `parse_args` shows that of all
            parsers[options.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    except OSError:  # Python 3.10's argparse fails where its message cannot be written, as to a closed stderr
        sys.exit(2)
    with signs_of_life(), warnings_as_sentences():
        return _run(found[options.command], options)


def find() -> Mapping[str, Command]:
    """The commands by name."""
    names = sorted(module.name for module in iter_modules(commands.__path__))
    return {name: cast(Command, import_module(f"{commands.__name__}.{name}")) for name in names}


@contextmanager
def signs_of_life() -> Iterator[None]:
    """Show on stderr what `mlx_embed` logs at INFO, which is each step of what takes long, and how far it has come.

    On a terminal all steps and bars; elsewhere, as in a log of a job, one line in ten seconds.
    """
    logger = logging.getLogger("mlx_embed")
    if sys.stderr is None or logger.isEnabledFor(logging.INFO):
        yield
        return
    terminal = sys.stderr.isatty()
    ticker = Ticker(_say)
    handler: logging.Handler = logging.StreamHandler(sys.stderr) if terminal else NowAndThen(ticker)
    handler.setFormatter(logging.Formatter("... %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with nullcontext() if terminal else in_lines(ticker):
            yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class NowAndThen(logging.Handler):
    """Shows what is logged as the ticker lets it pass, and warnings and errors always."""

    def __init__(self, ticker: Ticker) -> None:
        super().__init__()
        self._ticker = ticker

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, or not."""
        if record.levelno >= logging.WARNING:
            _say(logging.Formatter().format(record))
        else:
            self._ticker.offer(lambda: self.format(record))


def _say(line: str) -> None:
    """A line on stderr, if anybody reads it."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


@contextmanager
def warnings_as_sentences() -> Iterator[None]:
    """Show a warning as an error is shown: whoever runs a command has no use for the line of code that warns.

    Nor for options of a method that the command does not have.
    """
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"mlx-embed: {_told(message)}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _told(warning: Warning | str) -> Warning | str:
    return warning.found if isinstance(warning, TruncationWarning) else warning


def _run(command: Command, options: argparse.Namespace) -> int:
    """Run a command; an error that a person can mend becomes a sentence."""
    try:
        status = command.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        return READER_GONE
    except (MLXEmbedError, ValueError, RuntimeError, ImportError, OSError, MemoryError) as error:
        logging.getLogger("mlx_embed").debug("The command failed.", exc_info=True)
        if sys.stderr is not None:
            _say(f"mlx-embed: {passage(_sentence(error))}")  # where nobody reads, the status says it
        return 2


def _sentence(error: Exception) -> str:
    """What an error says; of one of the system the file's name and the reason, without its number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}."
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{os.strerror(error.errno)}: free some, and run it again."
    return str(error) or "there is not enough memory."


def _open_closed_streams() -> None:
    """Let no file that is opened later get the number of a standard stream, and with it what is printed there."""
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


def _name_what_cannot_be_shown() -> None:
    """Print "\\u673a" for a character that standard output's encoding lacks, as Python does on stderr."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_what_nobody_reads() -> None:
    """Give a stream whose reader has gone a place to write to, as Python's documentation says.

    At exit Python flushes both once more, and a failure would become the status.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
