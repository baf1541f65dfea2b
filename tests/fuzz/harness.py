"""Lets graphprune loose on one broken file, with limits, and says what came of it."""

from __future__ import annotations

import os
import resource
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from graphprune import api
from graphprune.errors import GraphPruneError

from .mutations import Broken

SECONDS = 20
"""Of the processor, what one case may take; the slowest of the whole models takes a tenth of it."""


class TooSlow(BaseException):
    """Not an Exception, so that nothing that handles errors can take it for one."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow in the block when this process has computed for so long (main thread only). The clock on the wall
    would say how busy the machine is."""

    def stop(signal_number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"after {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def limit_memory(size: int) -> None:
    """Let this process and those that it starts have at most `size` bytes of address space."""
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


def place(folder: Path, case: Broken) -> Path:
    """Write a case into a folder of its own, with everything around that external data may point at."""
    inside = folder / "model"
    (inside / "sub").mkdir(parents=True)
    (folder / "secret").write_bytes(b"secret" * 1000)
    (inside / "data").write_bytes(bytes(4096))
    (inside / "link").symlink_to(folder / "secret")
    (inside / "dangling").symlink_to(folder / "nowhere")
    os.mkfifo(inside / "pipe")
    path = inside / "model.onnx"
    path.write_bytes(case.content)
    return path


def listing(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def exercise(path: Path, out: Path, *, verify: bool = False) -> str:
    """Load, analyse, plan, apply, save and read back one file: "pruned", or the code of the error.

    verify: compare the outcome with the dense model; a difference (GP401) is a failure of graphprune, and so is any
            exception but GraphPruneError: they escape from here
    """
    try:
        model = api.load(path)
        analysis = api.analyze(model)
        plan = api.plan(analysis, ratio=0.4)
        pruned = api.apply(analysis, plan)
        api.save(pruned, out)
    except GraphPruneError as error:
        check_error(error)
        return error.code
    again = api.load(out)  # what is written must be readable
    if verify:
        try:
            api.require(api.verify(model, again, plan))
        except GraphPruneError as error:
            if error.code != "GP402":
                raise
            return error.code
    return "pruned"


def answer(folder: Path, case: Broken, *, verify: bool = False) -> str:
    """What `exercise` says to a case, or "defect" and why; `folder` is empty."""
    path = place(folder, case)
    before = listing(folder)
    (folder / "out").mkdir()
    try:
        with time_limit(SECONDS):
            text = exercise(path, folder / "out" / "small.onnx", verify=verify)
    except (Exception, TooSlow) as error:  # noqa: BLE001  # whatever escapes is what is looked for
        return f"defect {type(error).__name__}: {error} at {_innermost(error)} ({case.name})"
    written = [name for name in listing(folder) if name not in before and name != "out"]
    allowed = [["out/small.onnx"], ["out/small.onnx", "out/small.onnx.data"]] if text in {"pruned", "GP402"} else [[]]
    return text if written in allowed else f"defect files: {written} after {text} ({case.name})"


def _innermost(error: BaseException) -> str:
    ours = [each for each in traceback.extract_tb(error.__traceback__) if "graphprune" in each.filename]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"


def check_error(error: GraphPruneError) -> None:
    """What, where and what to do (where may be said in what), without control characters."""
    lines = str(error).splitlines()
    assert len(lines) >= 2, f"not fact, place and remedy: {error}"
    assert all(line.isprintable() for line in lines), f"control characters: {error}"
    assert error.code != "GP901", str(error)
