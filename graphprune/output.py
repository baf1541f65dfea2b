"""Writes files whole or not at all: beside their destination first, moved there together when all are complete.

What is unfinished lives in a folder whose name begins with `.graphprune-`, inside the folder of the destination (a
rename is atomic only within a file system), so that what a killed process leaves can be recognised and deleted.
Knows no format. Imports errors.py and the standard library.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from graphprune.errors import GraphPruneError

UNFINISHED = ".graphprune-"
"""How the names of folders with unfinished files begin."""


class Outputs:
    """Files of one folder that appear together.

        with Outputs("out/small.onnx") as outputs:
            write(outputs.path("small.onnx.data"))
            write(outputs.path("small.onnx"))
            outputs.commit(["small.onnx.data", "small.onnx"])

    Leaving the block without `commit`, by an exception, an interrupt or a return, leaves the folder as it was. Raises
    GraphPruneError GP105 where the folder does not exist or cannot be written, or the destination is not a file.
    """

    def __init__(self, destination: str | os.PathLike[str]) -> None:
        self.destination = Path(os.path.realpath(destination))
        """Where the main file goes; symbolic links are followed."""
        self.shown = os.fspath(destination)
        self.folder = self.destination.parent
        self.staged: Path | None = None

    def __enter__(self) -> Self:
        _check_destination(self.destination, self.shown)
        try:
            self.staged = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self.folder))
        except OSError as error:
            raise cannot_write(error, self.shown) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.staged is not None:
            shutil.rmtree(self.staged, ignore_errors=True)
        if isinstance(error, OSError):
            raise cannot_write(error, self.shown) from error

    def path(self, name: str) -> Path:
        """Where to write the file that will be called `name`."""
        assert self.staged is not None, "use Outputs in a with statement"
        return self.staged / name

    def commit(self, names: Sequence[str]) -> list[Path]:
        """Move the written files to their names, in this order; the last is the one that refers to the others.

        Files of these names that were there are replaced. Where there are several, the old ones are taken away before
        the first new one appears and put back if a move fails: a kill in between may leave a file missing, but never
        an old file beside a new one that it does not belong to.
        """
        for name in names:
            flush(self.path(name))
        aside = [name for name in names if (self.folder / name).exists()] if len(names) > 1 else []
        done: list[str] = []
        try:
            for name in reversed(aside):
                os.replace(self.folder / name, self.path(f"old-{name}"))
            for name in names:
                os.replace(self.path(name), self.folder / name)
                done.append(name)
        except BaseException:
            for name in done:
                (self.folder / name).unlink(missing_ok=True)
            for name in aside:
                if self.path(f"old-{name}").exists():
                    os.replace(self.path(f"old-{name}"), self.folder / name)
            raise
        flush(self.folder)
        return [self.folder / name for name in names]


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write one text file (UTF-8) whole or not at all. Raises GraphPruneError GP105."""
    with Outputs(path) as outputs:
        name = outputs.destination.name
        outputs.path(name).write_text(text, encoding="utf-8")
        outputs.commit([name])


def cache_folder(name: str) -> Path:
    """Where what was measured is kept: $XDG_CACHE_HOME/graphprune/NAME, by default below ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "graphprune" / name


def cannot_write(error: OSError, path: str) -> GraphPruneError:
    """What the operating system refused, as GP105."""
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return GraphPruneError("GP105", f"cannot write: {reason}", path)


def _check_destination(path: Path, shown: str) -> None:
    if not path.name or path.is_dir():
        raise GraphPruneError("GP105", "cannot write: it is a folder", shown, "name a file in it, such as small.onnx")
    if not path.parent.is_dir():
        raise GraphPruneError("GP105", "cannot write: its folder does not exist", shown, f"create {path.parent} first")
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # the usual case: there is no such file yet
    if not stat.S_ISREG(mode):
        # Moving a file over a device would replace the device.
        raise GraphPruneError("GP105", "cannot write: it is a device or a pipe, not a file", shown, "name a file")


def flush(path: Path) -> None:
    """Have the operating system store what was written, so that a crash after the move finds it."""
    if os.name == "nt" and path.is_dir():
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
