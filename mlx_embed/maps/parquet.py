"""A map as Parquet, with the columns that embedding-atlas reads (https://apple.github.io/embedding-atlas)."""

from pathlib import Path

from mlx_embed.maps.html import Map

try:
    import pyarrow
    from pyarrow import parquet
except ImportError as error:
    raise ImportError('Parquet needs pyarrow: pip install ".[parquet]" in a clone of mlx-embed') from error

X, Y, TEXT = "projection_x", "projection_y", "text"
# Of the map; a column of the same name in the corpus is left out.
OWN = ("id", TEXT, "cluster", X, Y)


def write(found: Map, path: Path) -> None:
    """A row a text: its id, text, columns, cluster and place.

    Raises:
        OSError: the file cannot be written.
    """
    corpus = found.corpus
    columns = {
        "id": pyarrow.array(list(corpus.ids), pyarrow.string()),
        TEXT: pyarrow.array(list(corpus.texts), pyarrow.string()),
        **{name: _column(values) for name, values in corpus.columns.items() if name not in OWN},
        "cluster": pyarrow.array([found.name(label) for label in found.labels.tolist()], pyarrow.string()),
        X: pyarrow.array(found.places[:, 0]),
        Y: pyarrow.array(found.places[:, 1]),
    }
    parquet.write_table(pyarrow.table(columns), path)


def command(path: Path) -> str:
    """What opens the file in embedding-atlas, which then computes nothing itself."""
    return f"embedding-atlas {path} --text {TEXT} --x {X} --y {Y}"


def _column(values: object) -> pyarrow.Array:
    """Values of one kind as they are, and mixed ones as text."""
    listed = list(values)  # type: ignore[call-overload]
    kinds = {type(value) for value in listed if value is not None}
    if len(kinds) > 1 and kinds != {int, float}:
        listed = [None if value is None else str(value) for value in listed]
    elif kinds == {int, float}:
        listed = [None if value is None else float(value) for value in listed]
    return pyarrow.array(listed)
