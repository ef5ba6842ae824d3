"""What a caller may give for a number, an array of them, a list, a path, and a file to write."""

import math
import operator
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt


def type_name(value: Any) -> str:
    """The name of a value's type, or of a type, with its article: "an int", "a list"."""
    name = (value if isinstance(value, type) else type(value)).__name__
    return f"{'an' if name[0] in 'aeioAEIO' or name == 'ndarray' else 'a'} {name}"


def whole_number(name: str, value: Any) -> int:
    """The int of any whole number, such as numpy's.

    Raises:
        TypeError: a float, a string, a bool, or anything else; `name` is in the message.
    """
    if not isinstance(value, (bool, np.bool_)):  # operator.index takes numpy's bool for 0 or 1 in numpy 2.2
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name} is {value!r}, {type_name(value)}, where a whole number is needed.")


def positive_number(name: str, value: Any, unit: str) -> int:
    """The int of a whole number from 1 up, of things that `unit` says.

    Raises:
        TypeError: as `whole_number`.
        ValueError: a number below 1.
    """
    number = whole_number(name, value)
    if number < 1:
        raise ValueError(f"{name} {number} is not a positive number of {unit}.")
    return number


def row_of(place: Any, count: int) -> int:
    """The row, from 0, of a place as Python counts them: -1 is the last of `count`.

    Raises:
        TypeError: as `whole_number`.
        IndexError: there is none.
    """
    row = whole_number("The place", place)
    if not -count <= row < count:
        raise IndexError(f"There is no place {row} among {count}.")
    return row % count


def finite_number(name: str, value: Any) -> float:
    """The float of a number that is neither infinite nor "not a number"; also of one in words.

    Raises:
        ValueError: anything else; `name` is in the message.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} {value} is not a finite number.")
    return number


def numbers(name: str, given: Any) -> npt.NDArray[Any]:
    """The numpy array of one of numpy's or MLX's, of lists, or of anything else that numpy reads; bfloat16 as float32.

    Raises:
        TypeError: something in it that is no real number; `name` is in the message.
        ValueError: rows of different lengths.
    """
    if isinstance(given, mx.array) and given.dtype == mx.bfloat16:
        given = given.astype(mx.float32)  # numpy has no bfloat16
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise ValueError(f"{name} is no array of numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {array.dtype}, where numbers are needed.")
    return array


def require_list(name: str, given: Any) -> None:
    """Raise TypeError for no list, and for what would be taken apart into letters or keys."""
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(f"{name} is {type_name(given)}, where a list of strings is needed.")


def require_string(name: str, given: Any) -> None:
    """Raise TypeError for what is no string, in the place of one."""
    if not isinstance(given, str):
        raise TypeError(f"{name} is {type_name(given)}, where a string is needed.")


def plain_string(text: str) -> str:
    """The string that one of a class of its own, numpy's or an enumeration's, is: these have other reprs and hashes."""
    return str.__str__(text)


def path_of(name: str, given: Any) -> Path:
    """The path of a file or folder, absolute: it stays the same when the process changes its folder.

    A "~" is the user's own; of a user that there is not, it is a name like any other.

    Raises:
        TypeError: neither a string nor a Path; `name` is in the message.
        ValueError: an empty name, or one with a zero byte.
    """
    text = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(text, str):
        raise TypeError(f"{name} is {type_name(given)}, where a string or a Path is needed.")
    if not text or "\0" in text:
        what = "has a zero byte" if text else "is empty"
        raise ValueError(f'{name} {what}, as no name of a file does ("." is the current folder).')
    return Path(os.path.expanduser(plain_string(text))).absolute()


def is_folder(given: str | Path) -> bool:
    """Whether there is a folder of this name; what can be no name, or is too long for one, is none."""
    return os.path.isdir(os.path.expanduser(given))


def output_files(outputs: Mapping[str, Path | None], inputs: Iterable[Path] = ()) -> None:
    """Look at files that are to be written, by the names of their options, before any work.

    Raises:
        ValueError: there is no folder for one, it is a folder, or it is one of `inputs` or of the other outputs.
    """
    read = {Path(os.path.expanduser(file)).resolve() for file in inputs}
    for name, file in outputs.items():
        if file is None:
            continue
        if not file.absolute().parent.is_dir():
            raise ValueError(f"{name} {file}: there is no folder {file.absolute().parent}.")
        if file.is_dir():
            raise ValueError(f"{name} {file} is a folder, where the name of a file is needed.")
        if file.resolve() in read:
            raise ValueError(f"{name} {file} is read or written already; choose another name.")
        read.add(file.resolve())
