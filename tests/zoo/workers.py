"""Models in processes of their own, with limits of time and memory: what crashes or hangs takes nothing along."""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from .zoo import LIBRARIES, Model, Record, examine, models_of


@dataclass(frozen=True)
class Limits:
    """Per model: seconds, and gigabytes of address space."""

    seconds: float = 600.0
    gigabytes: float = 16.0


def run(models: Sequence[Model], limits: Limits, jobs: int) -> Iterator[Record]:
    """The records of models, in the order given, ``jobs`` at a time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "graphprune.verify", "graphprune.dialects.aten.tools", *{LIBRARIES[each.library] for each in models}]
    )
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda model: _one(model, limits), models)


def _one(model: Model, limits: Limits) -> Record:
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    record = Record(model.name, model.library, model.family)
    with tempfile.NamedTemporaryFile("r", suffix=".txt") as log:
        process = context.Process(target=_work, args=(model.library, model.name, limits.gigabytes, log.name, theirs))
        process.start()
        theirs.close()
        try:
            while ours.poll(max(1.0, limits.seconds - record.seconds)):
                record = ours.recv()
            record.cause = f"{record.stage}: it took more than {limits.seconds:g} seconds"
        except EOFError:
            process.join()
            if process.exitcode:
                record.cause = f"{record.stage}: {_last_line(log.name) or f'the process ended with {process.exitcode}'}"
                record.ok = False
        finally:
            process.kill()
            process.join()
            ours.close()
    return record


def _last_line(path: str) -> str:
    lines = [line for line in Path(path).read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _work(library: str, name: str, gigabytes: float, log: str, results: Connection) -> None:
    target = os.open(log, os.O_WRONLY)
    os.dup2(target, 1)
    os.dup2(target, 2)
    limit = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    torch.set_num_threads(1)
    model = next(each for each in models_of(library) if each.name == name)
    results.send(examine(model, results.send))
