"""The folder of an artifact: written whole or not at all, and checked as a whole before anything in it is used."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from graphprune.errors import GraphPruneError
from graphprune.output import UNFINISHED, cannot_write, flush
from graphprune.runtime import manifest
from graphprune.runtime.artifact import Network
from graphprune.runtime.manifest import Build, File, Manifest

SEVERAL = "sizes.json"  # beside artifacts of one network at several sizes (see sizes.py)


# ---------------------------------------------------------------- writing
@contextmanager
def staged(out: str | os.PathLike[str], force: bool = False) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` when the block ends well, and vanishes when it does not.

    An artifact that is there is replaced only with `force`; anything else that is there never is. Raises
    GraphPruneError GP105 where it cannot be written.
    """
    destination = Path(os.path.abspath(out))
    shown = os.fspath(out)
    check_destination(out, force)
    try:
        place = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=destination.parent))
    except OSError as error:
        raise cannot_write(error, shown) from error
    try:
        folder = place / "artifact"
        folder.mkdir()
        yield folder
        for path in sorted(folder.rglob("*")):
            flush(path)
        flush(folder)
        check_destination(out, force)  # it took a while
        _move(folder, destination, place / "old")
    except OSError as error:
        raise cannot_write(error, shown) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def check_destination(out: str | os.PathLike[str], force: bool = False) -> None:
    """Find out early what would go wrong when writing. Raises GraphPruneError GP105."""
    destination, shown = Path(os.path.abspath(out)), os.fspath(out)
    if not destination.parent.is_dir():
        remedy = f"create {destination.parent} first"
        raise GraphPruneError("GP105", "cannot write: its folder does not exist", shown, remedy)
    if not os.access(destination.parent, os.W_OK):
        raise GraphPruneError("GP105", "cannot write: permission denied", shown)
    if not os.path.lexists(destination):
        return
    if not _is_artifact(destination):
        what = "cannot write: something is there that is no artifact, and it is never replaced"
        raise GraphPruneError("GP105", what, shown, "choose another name, such as model.gp")
    if not force:
        raise GraphPruneError("GP105", "cannot write: it exists", shown, "allow replacing it with --force")


def _is_artifact(path: Path) -> bool:
    if path.is_symlink():
        return False
    if (path / SEVERAL).is_file():
        return True
    try:
        manifest.read(path)
    except GraphPruneError as error:
        return error.code == "GP510"
    return True


def _move(folder: Path, destination: Path, aside: Path) -> None:
    replaced = destination.exists()
    try:
        if replaced:
            os.rename(destination, aside)
        os.rename(folder, destination)
    except BaseException:
        if aside.exists() and not destination.exists():
            os.rename(aside, destination)
        raise
    flush(destination.parent)


def write(folder: Path, network: Network, about: Manifest | None = None) -> Manifest:
    """Write the files of a network into an empty folder, and their manifest; what it says.

    about: a manifest whose target, machine, versions, source, verification and notes are taken
    """
    builds: list[Build] = []
    for each in network.variants:
        library = _stored(folder, f"{each.name}.so", each.library)
        # The loader takes a library for one that is loaded already where the paths are equal, whatever is there now.
        unique = f"{each.name}-{library.sha256[:16]}.so"
        (folder / library.file).rename(folder / unique)
        library = replace(library, file=unique)
        constants = _stored(folder, f"{each.name}.constants", each.constants)
        same = [b.constants for b in builds if b.constants.sha256 == constants.sha256]
        if same:  # equal constants are stored once
            (folder / constants.file).unlink()
            constants = same[0]
        features, layers = tuple(sorted(each.features)), tuple(each.layers)
        builds.append(Build(each.name, features, library, constants, each.arena, layers))
    fallbacks = [_stored(folder, f"fallback-{n}.onnx", model) for n, model in enumerate(network.fallbacks)]
    made = Manifest(
        id=network.id,
        target=about.target if about else "",
        machine=about.machine if about else "x86_64",
        threads=network.threads,
        inputs=tuple(network.inputs),
        outputs=tuple(network.outputs),
        variants=tuple(builds),
        fallbacks=tuple(fallbacks),
        versions={**(about.versions if about else {}), **network.versions},
        source=about.source if about else {},
        verification=about.verification if about else (),
        notes=tuple(network.notes) + (about.notes if about else ()),
    )
    return write_manifest(folder, made)


def write_manifest(folder: Path, made: Manifest) -> Manifest:
    """Write `manifest.json`, and read it as a user will. Raises GraphPruneError GP509 for what no reader would take."""
    text = made.to_json().encode()
    manifest.parsed(text, str(folder))
    (folder / manifest.NAME).write_bytes(text)
    return made


def _stored(folder: Path, name: str, content: bytes | bytearray | memoryview | Path) -> File:
    path = folder / name
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)
    return File(name, path.stat().st_size, digest_of(path))


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- reading
def check(folder: Path, found: Manifest, variants: Sequence[Build] | None = None, *, quick: bool = False) -> None:
    """Hold the files of an artifact against its manifest. Raises GraphPruneError: GP509 where one is not as it was
    written, GP101 where one cannot be read.

    variants: those whose files are used; default: all
    quick:    of constants, look at the size only; libraries and fallbacks are always read whole
    """
    for each in found.variants if variants is None else variants:
        check_file(folder, each.library, whole=True)
        check_file(folder, each.constants, whole=not quick)
    for file in found.fallbacks:
        check_file(folder, file, whole=True)


def check_file(folder: Path, file: File, *, whole: bool) -> None:
    """Raises GraphPruneError GP509 where a file is not what its manifest says."""
    path = folder / file.file
    try:
        if path.is_symlink() or not path.is_file():
            what = "is a link" if path.is_symlink() else "is missing"
            raise GraphPruneError("GP509", f"{file.file!r} {what}", str(folder))
        size = path.stat().st_size
        if size != file.bytes:
            raise GraphPruneError("GP509", f"{file.file!r} has {size} bytes instead of {file.bytes}", str(folder))
        if whole and digest_of(path) != file.sha256:
            raise GraphPruneError("GP509", f"{file.file!r} has other contents than when it was written", str(folder))
    except OSError as error:
        raise GraphPruneError("GP101", f"{file.file!r} cannot be read: {error.strerror}", str(folder)) from error
