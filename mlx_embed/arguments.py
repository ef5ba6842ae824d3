"""What a caller may give for a number."""

import operator
from typing import Any


def whole_number(name: str, value: Any) -> int:
    """The int of any whole number, such as numpy's.

    Raises:
        TypeError: a float, a string, a bool, or anything else; `name` is in the message.
    """
    if not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name} is {value!r}, a {type(value).__name__}, where a whole number is needed.")
