"""A folder on disk that finds texts again: vectors compared exactly, words by SQLite's FTS5, and both together.

Index.create(path, model) and Index.open(path)   an index; its add, upsert, replace_files, delete, search
Chunk, FileStat                                  what of a file is put into one
Hit                                              what a search finds

`docs/index.md` says how it lies on disk, what is promised, and how that was tested.
"""

from mlx_embed.index.entries import Chunk, FileStat, Hit
from mlx_embed.index.index import Index

__all__ = ["Chunk", "FileStat", "Hit", "Index"]
