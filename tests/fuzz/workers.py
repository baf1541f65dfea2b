"""Cases in processes of their own, which may crash or hang without taking the rest along."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from .harness import SECONDS, answer, limit_memory
from .mutations import Sources


@dataclass(frozen=True)
class Job:
    """What all workers are told. `gigabytes` is the address space that each may use."""

    seed: int
    folder: Path | None
    verify: bool
    gigabytes: float
    keep: Path | None


def is_defect(text: str) -> bool:
    """Whether an answer is none."""
    return text.startswith("defect")


def answers(job: Job, numbers: range) -> Iterator[tuple[int, str]]:
    """The answers to some cases, from as many processes as it takes."""
    context = multiprocessing.get_context("spawn")
    while numbers:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(job, numbers, theirs))
        process.start()
        theirs.close()
        done = 0
        try:
            while done < len(numbers):
                if not ours.poll(3 * SECONDS):
                    yield numbers[done], "defect hang: it did not even react to the alarm"
                    break
                yield numbers[done], ours.recv()
                done += 1
            else:
                return
        except EOFError:
            process.join()
            yield numbers[done], f"defect crash: the process ended with {process.exitcode}"
        finally:
            process.kill()
            process.join()
            ours.close()
        numbers = numbers[done + 1 :]


def _work(job: Job, numbers: range, results: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # onnxruntime speaks of every broken model
    sources = Sources(job.folder)
    limit_memory(int(job.gigabytes * 2**30))
    for number in numbers:
        case = sources.case(number, job.seed)
        with tempfile.TemporaryDirectory() as folder:
            text = answer(Path(folder), case, verify=job.verify)
        if job.keep is not None and is_defect(text):
            job.keep.mkdir(parents=True, exist_ok=True)
            (job.keep / f"{job.seed}-{number}.onnx").write_bytes(case.content)
        results.send(text)
