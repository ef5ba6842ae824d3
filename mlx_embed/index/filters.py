"""Which texts a search looks at: a filter, by the paths of files and by metadata, put to the database.

A filter is a mapping, all of whose conditions must hold. The key "path" takes a glob or several, any of which may
match: "*" and "?" stay within a folder, "**" does not, and a glob without "/" is of a file's name. Any other key is of
the metadata: a value that is equal, a list of values of which one is, or a mapping of ">", ">=", "<", "<=", "!=", "=".
Where metadata has a list, one of its values must meet the condition. Three keys put filters together: "$and" and "$or"
take a list of filters, and "$not" takes one; "$id" takes an id or several. "$metadata" takes a filter whose keys are
all of the metadata, whatever they are called: there "path" and "$id" are keys like others.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from sqlite3 import Connection
from typing import Any, TypeAlias

import numpy as np

from mlx_embed.arguments import require_list, type_name
from mlx_embed.index.blocks import Numbers
from mlx_embed.index.patterns import ANY, FOLDERS, STAR, expression

Filter: TypeAlias = Mapping[str, Any]

PATH, ID = "path", "$id"
AND, OR, NOT = "$and", "$or", "$not"
METADATA = "$metadata"
_OPERATORS = (">=", "<=", "!=", ">", "<", "=")
_TEXTS = {PATH: "a glob or a list of globs", ID: "an id or a list of ids"}
# "007", "1_000" and "nan" are words.
_NUMBER = re.compile(r"[+-]?(?!0[0-9])([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# Values in one query.
_AT_ONCE = 900
# Filters within filters.
DEEPEST = 100


def parsed(conditions: Iterable[str]) -> dict[str, Any]:
    """A filter of conditions in words: "year>=2020", "lang=en", "path=docs/**", as a command line has them.

    What reads as a number, or as true or false, is that; put anything into double quotes to have it as a string.
    Several of one key with "=" are alternatives. A key in double quotes is of the metadata, whatever it is called:
    '"path"=x', '"a=b">3'.

    Raises:
        ValueError: a condition of another form.
    """
    found: dict[str, Any] = {}
    require_list("conditions", conditions)
    for condition in conditions:
        match = re.match(r"(\s*\"[^\"]*\"\s*|[^<>=!]+)(>=|<=|!=|>|<|=)(.*)", condition, re.DOTALL)
        if not match:
            raise ValueError(f"The filter {condition!r} is not of the form KEY=VALUE, KEY>=VALUE, KEY!=VALUE or so.")
        key, operator, text = match[1].strip(), match[2], match[3].strip()
        value: Any = text if key == PATH else _value(text)
        own = found
        if len(key) > 1 and key[0] == key[-1] == '"':
            own, key = found.setdefault(METADATA, {}), key[1:-1]
        ranges = own[key] if isinstance(own.get(key), dict) else {}
        if operator == "=" and not ranges:
            own[key] = [*own.get(key, []), value]
        elif key in own and not ranges:
            raise ValueError(f"The filter has {key}= and {key}{operator}; use one of them.")
        else:
            own[key] = {**ranges, operator: value}
    return found


def _value(text: str) -> Any:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    if _NUMBER.fullmatch(text):
        value = int(text) if text.lstrip("+-").isdecimal() else float(text)
        return value if math.isfinite(value) else text
    return text


def checked(given: Filter | None) -> Filter | None:
    """A filter that can be asked for; None where there are no conditions.

    Raises:
        TypeError, ValueError: something else; the message names the key.
    """
    if given is None:
        return None
    _check(given, 1)
    return given or None


def _check(given: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"The filter has filters within filters to a depth of more than {DEEPEST}.")
    if not isinstance(given, Mapping):
        raise TypeError(f"filter is {type_name(given)}, where a mapping of keys to conditions is needed.")
    for key, condition in given.items():
        if not isinstance(key, str):
            raise TypeError(f"The filter's key {key!r} is {type_name(key)}, where a string is needed.")
        _check_text("key", key)
        if key in (PATH, ID):
            for text in _alternatives(condition):
                if not isinstance(text, str):
                    raise TypeError(f"The filter's {key} is {text!r}, where {_TEXTS[key]} is needed.")
                _check_text(key, text)
            continue
        if key in (AND, OR, NOT):
            parts = [condition] if key == NOT else condition
            if not isinstance(parts, (list, tuple)) or not all(isinstance(part, Mapping) for part in parts):
                needed = "a filter" if key == NOT else "a list of filters"
                raise TypeError(f"The filter's {key} is {condition!r}, where {needed} is needed.")
            for part in parts:
                _check(part, depth + 1)
            continue
        if key == METADATA:
            if not isinstance(condition, Mapping):
                raise TypeError(f"The filter's {key} is {condition!r}, where a mapping of keys is needed.")
            for name, one in condition.items():
                if not isinstance(name, str):
                    raise TypeError(f"The filter's key {name!r} is {type_name(name)}, where a string is needed.")
                _check_text("key", name)
                _check_metadata(name, one)
            continue
        if key.startswith("$"):
            raise ValueError(
                f"The filter's {key} is not one of {', '.join((AND, OR, NOT, ID, METADATA))}; metadata of that name is "
                f"asked for by {{{METADATA!r}: {{{key!r}: ...}}}}."
            )
        _check_metadata(key, condition)


def _check_metadata(key: str, condition: Any) -> None:
    if isinstance(condition, Mapping):
        if unknown := [name for name in condition if name not in _OPERATORS]:
            raise ValueError(f"The filter's {key} has {unknown[0]!r}, which is not one of {', '.join(_OPERATORS)}.")
        values = list(condition.values())
    else:
        values = list(_alternatives(condition))
    for value in values:
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"The filter's {key} has nan, which is equal to nothing.")
        if not isinstance(value, (str, int, float)) or (isinstance(value, int) and abs(value) >= 2**63):
            raise TypeError(
                f"The filter's {key} has {value!r}, where a string, a number or a boolean is needed, a list of "
                'these, or a mapping such as {">=": 2020}.'
            )
        if isinstance(value, str):
            _check_text(key, value)


def _check_text(key: str, text: str) -> None:
    """Raise ValueError for what UTF-8 cannot hold; no text of an index has it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"The filter's {key} has {text!r:.80}, which is no Unicode text ({error.reason}).") from error


def numbers(connection: Connection, conditions: Filter) -> Numbers:
    """The numbers of the texts that meet all conditions: int64 [n], rising."""
    return _every(connection, [_of_key(connection, key, condition) for key, condition in conditions.items()])


def _of_key(connection: Connection, key: str, condition: Any) -> Numbers:
    if key == PATH:
        return _of_paths(connection, condition)
    if key == ID:
        return _of_column(connection, "id", _alternatives(condition))
    if key == NOT:
        return np.setdiff1d(_every(connection, []), numbers(connection, condition), assume_unique=True)
    if key in (AND, OR):
        parts = [numbers(connection, part) for part in condition]
        if key == AND:
            return _every(connection, parts)
        return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *parts]))
    if key == METADATA:
        return _every(connection, [_of_metadata(connection, name, one) for name, one in condition.items()])
    return _of_metadata(connection, key, condition)


def _every(connection: Connection, parts: Sequence[Numbers]) -> Numbers:
    """What is in every part; of no parts, all there is."""
    if not parts:
        return np.array(_column(connection, "SELECT number FROM chunk ORDER BY number", []), dtype=np.int64)
    return reduce(lambda one, other: np.intersect1d(one, other, assume_unique=True), parts)


def _of_paths(connection: Connection, condition: Any) -> Numbers:
    patterns = [_pattern(glob) for glob in _alternatives(condition)]
    paths = [path for (path,) in connection.execute("SELECT DISTINCT path FROM chunk WHERE path > ''")]
    wanted = [path for path in paths if any(pattern.fullmatch(path) for pattern in patterns)]
    return _of_column(connection, "path", wanted)


def _of_column(connection: Connection, column: str, wanted: Sequence[str]) -> Numbers:
    """The numbers of the texts whose id or path is one of these."""
    return _one_of(connection, f"SELECT number FROM chunk WHERE {column}", [], wanted)


def _one_of(connection: Connection, query: str, given: Sequence[Any], wanted: Sequence[Any]) -> Numbers:
    """What a query, which ends with the name of a column, finds where that is one of `wanted`."""
    found: list[int] = []
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        found += _column(connection, f"{query} IN ({_marks(some)})", [*given, *some])
    return np.unique(np.array(found, dtype=np.int64))


def _of_metadata(connection: Connection, key: str, condition: Any) -> Numbers:
    query = "SELECT DISTINCT number FROM attribute WHERE key = ? AND "
    if not isinstance(condition, Mapping):
        return _one_of(connection, f"{query}value", [key], _alternatives(condition))
    clauses, values = ["1"], [key]
    for operator, value in condition.items():
        clauses.append(f"value {operator} ?")
        values.append(value)
        if operator in ("<", "<=", ">", ">="):
            # SQLite sorts numbers before strings: without this, every string is larger than any number.
            clauses.append("typeof(value) " + ("= 'text'" if isinstance(value, str) else "<> 'text'"))
    found = _column(connection, query + " AND ".join(clauses), values)
    return np.sort(np.array(found, dtype=np.int64))


def _column(connection: Connection, query: str, values: Sequence[Any]) -> list[int]:
    return [number for (number,) in connection.execute(query, values)]


def _alternatives(condition: Any) -> Sequence[Any]:
    return condition if isinstance(condition, (list, tuple)) else [condition]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _pattern(glob: str) -> re.Pattern[str]:
    """A glob as a regular expression; one without "/" is of a name in any folder."""
    if "/" not in glob:
        glob = f"**/{glob}"
    wild = {"**/": FOLDERS, "**": ANY, "*": STAR, "?": "[^/]"}
    pieces = re.findall(r"(?:(?<=/)|^)\*\*/|\*\*|.", glob, re.DOTALL)
    return re.compile(expression([wild.get(piece, re.escape(piece)) for piece in pieces]), re.DOTALL)
