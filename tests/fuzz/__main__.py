"""The command of tests/fuzz: many cases in worker processes, which may crash or hang without taking the rest along."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from .harness import SECONDS, answer, limit_memory
from .mutations import Sources

_CASES_PER_PROCESS = 200


@dataclass(frozen=True)
class Job:
    """What all workers are told. `gigabytes` is the address space that each may use."""

    seed: int
    folder: Path | None
    verify: bool
    gigabytes: float
    keep: Path | None


def main() -> int:
    """Run the cases, tell about each defect as it is found, and sum up; the exit code is 1 where there was one."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Break models and prune what is left.")
    parser.add_argument("--count", type=int, default=10_000, help="cases to run")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="break the .onnx files of this folder too")
    parser.add_argument("--verify", action="store_true", help="run what comes out against what went in")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--gigabytes", type=float, default=8.0, help="address space of each process")
    parser.add_argument("--keep", type=Path, help="save the files of failed cases in this folder")
    given = parser.parse_args()
    job = Job(given.seed, given.folder, given.verify, given.gigabytes, given.keep)
    numbers = range(given.first, given.first + given.count)
    chunks = [numbers[k : k + _CASES_PER_PROCESS] for k in range(0, len(numbers), _CASES_PER_PROCESS)]
    answers: Counter[str] = Counter()
    defects = 0
    with ThreadPoolExecutor(given.jobs) as pool:
        for found in pool.map(lambda chunk: list(_chunk(job, chunk)), chunks):
            answers.update(text.split(":")[0] for _, text in found)
            for number, text in found:
                if _is_defect(text):
                    defects += 1
                    print(f"case {number}: {text}", flush=True)
            print(f"{answers.total()} of {given.count}, {defects} defects", file=sys.stderr, flush=True)
    print(", ".join(f"{text} {count}" for text, count in sorted(answers.items())))
    print(f"{given.count - defects} of {given.count} broken models answered cleanly")
    return 1 if defects else 0


def _is_defect(text: str) -> bool:
    return text.startswith("defect")


def _chunk(job: Job, numbers: range) -> Iterator[tuple[int, str]]:
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
        if job.keep is not None and _is_defect(text):
            job.keep.mkdir(parents=True, exist_ok=True)
            (job.keep / f"{job.seed}-{number}.onnx").write_bytes(case.content)
        results.send(text)


if __name__ == "__main__":
    sys.exit(main())
