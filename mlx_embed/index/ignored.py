"""What git would leave out of a folder, by its .gitignore files."""

from pathlib import Path

from mlx_embed.index.patterns import Patterns


class Ignored:
    """The rules of a folder, of those above it up to the repository's, and of those below as they are come by."""

    def __init__(self, root: Path) -> None:
        """Read the rules that hold for `root`, an absolute path; those of folders inside it are read when asked."""
        self._rules: dict[Path, Patterns | None] = {}
        self._repository = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), None)
        self._top = self._repository or root
        if any(self(folder, is_folder=True) for folder in (root, *root.parents) if self._top in folder.parents):
            self._top = root  # who names a folder that git leaves out wants what is in it

    def __call__(self, path: Path, *, is_folder: bool) -> bool:
        """Whether a path below the root is left out; the folders above it are taken not to be.

        Raises:
            OSError: a .gitignore that cannot be read, since nobody knows then what it would keep out.
        """
        for folder in path.parents:
            rules = self._of(folder)
            said = None if rules is None else rules.says(path.relative_to(folder).as_posix(), is_folder=is_folder)
            if said is not None:
                return said
            if folder == self._top:
                break
        return False

    def _of(self, folder: Path) -> Patterns | None:
        """The rules of a folder's own files; the later of them count more."""
        if folder not in self._rules:
            files = [folder / ".gitignore"]
            if folder == self._repository:
                files.insert(0, folder / ".git" / "info" / "exclude")
            lines = [line for file in files for line in _lines(file)]
            self._rules[folder] = Patterns(lines) if lines else None
        return self._rules[folder]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return []
