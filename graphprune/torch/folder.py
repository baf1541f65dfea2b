"""A folder that appears whole or not at all: written beside its destination, moved there when complete.

Imports output.py, errors.py and the standard library.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from graphprune.errors import GraphPruneError
from graphprune.output import UNFINISHED, cannot_write, flush


class NewFolder:
    """A folder under construction.

        with NewFolder("out/small", may_replace) as folder:
            write(folder.path / "model.safetensors")
            folder.commit()

    may_replace: whether a folder that is there already may be replaced as a whole; one that is empty always may

    Leaving the block without `commit` leaves everything as it was. Raises GraphPruneError: GP104 where the destination
    is a folder that may not be replaced, GP105 where it cannot be written.
    """

    def __init__(self, destination: str | os.PathLike[str], may_replace: Callable[[Path], bool]) -> None:
        self.destination = Path(os.path.realpath(destination))
        self.shown = os.fspath(destination)
        self.may_replace = may_replace
        self.staged: Path | None = None

    def __enter__(self) -> Self:
        self._check()
        try:
            self.staged = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self.destination.parent))
            (self.staged / "new").mkdir()  # with the usual permissions: a temporary folder is for its owner only
        except OSError as error:
            self._clear()
            raise cannot_write(error, self.shown) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()
        if isinstance(error, OSError):
            raise cannot_write(error, self.shown) from error

    @property
    def path(self) -> Path:
        """Where to write what will be in the folder."""
        assert self.staged is not None, "use NewFolder in a with statement"
        return self.staged / "new"

    def commit(self) -> list[Path]:
        """Move the folder to its place; the files in it. An older one is taken away first and put back on failure."""
        assert self.staged is not None, "use NewFolder in a with statement"
        names = sorted(each.name for each in self.path.iterdir())
        for each in [*(self.path / name for name in names), self.path]:
            flush(each)
        self._check()
        old = self.staged / "old"
        if self.destination.exists():
            os.replace(self.destination, old)
        try:
            os.replace(self.path, self.destination)
        except BaseException:
            if old.exists():
                os.replace(old, self.destination)
            raise
        flush(self.destination.parent)
        return [self.destination / name for name in names]

    def _check(self) -> None:
        place = self.destination
        if not place.parent.is_dir():
            remedy = f"create {place.parent} first"
            raise GraphPruneError("GP105", "cannot write: the folder around it does not exist", self.shown, remedy)
        if not place.exists():
            return
        if not place.is_dir():
            raise GraphPruneError("GP105", "cannot write a folder: there is a file", self.shown, "choose another name")
        if any(place.iterdir()) and not self.may_replace(place):
            what = "the folder holds other files than those of a checkpoint, which replacing it would delete"
            raise GraphPruneError("GP104", what, self.shown, "choose another folder, or an empty one")

    def _clear(self) -> None:
        if self.staged is not None:
            shutil.rmtree(self.staged, ignore_errors=True)
