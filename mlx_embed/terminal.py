"""Texts and names of strangers, as a terminal may be given them."""

import re

# What a file could do to a terminal by being shown, but for tabs and the ends of lines.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BREAKS = re.compile(r"[\n\r]")


def passage(text: str) -> str:
    r"""A text of any lines, with control characters as \x1b; a carriage return is left out."""
    return _CONTROLS.sub(lambda match: "" if match[0] == "\r" else _escaped(match), text)


def line(text: str) -> str:
    r"""What belongs in one line, such as the name of a file: also its own ends of lines are as \x0a."""
    return passage(_BREAKS.sub(_escaped, text))


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"
