"""The option by which commands are told where a row has its text."""

import argparse


def add_fields(parser: argparse.ArgumentParser, *names: str, what: str = "field or column of the text") -> None:
    """--field, and its other names; as `fields`, a list that is empty where nothing is said."""
    parser.add_argument(
        "--field",
        *names,
        dest="fields",
        action="append",
        default=[],
        metavar="NAME",
        help=f"{what}; given again, they are joined by a space (text)",
    )
