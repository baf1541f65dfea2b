"""`graphprune sweep`: which criterion and which recovery lose least on this model, at which budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.cli import EXIT_INTERRUPTED
from graphprune.cli.console import Console
from graphprune.cli.options import BUDGETS, Before, Choices, Data, _option, _share, named_sizes, taking
from graphprune.cli.source import Module, read
from graphprune.errors import GraphPruneError

if TYPE_CHECKING:
    from graphprune.sweep_text import Sweep

_MOST_TARGETS = 100


def shares(text: str, option: str) -> tuple[float, ...]:
    """Shares from `0.3:0.9:0.1`, both ends taken, or `0.3,0.5`. Raises GraphPruneError GP107.

    >>> shares("0.3:0.6:0.1", "--macs"), shares("50%,0.7", "--macs")
    ((0.3, 0.4, 0.5, 0.6), (0.5, 0.7))
    """
    place, lowest_excluded = f"option {option}", option != "--ratio"
    if ":" not in text:
        return tuple(_share(each, place, lowest_excluded) for each in text.split(","))
    parts = text.split(":")
    if len(parts) != 3:
        raise GraphPruneError("GP107", f"{text!r} is not a range of shares", place, "write 0.3:0.9:0.1, or 0.3,0.5")
    first, last, step = (_share(each, place, lowest_excluded) for each in parts)
    count = math.floor((last - first) / step + 1e-9) + 1 if step > 0 else 0
    if not 0 < count <= _MOST_TARGETS:
        remedy = "write 0.3:0.9:0.1: the first, the last, and the step between"
        raise GraphPruneError("GP107", f"{text!r} is a range of {count} shares", place, remedy)
    return tuple(round(first + step * place, 10) for place in range(count))


def _parser(option: str) -> Any:
    return lambda text: shares(text, option)


def names(text: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(each.strip() for each in text.split(","))


def _seeds(text: str) -> tuple[int, ...]:
    found = [each.strip() for each in str(text).split(",")]
    if not all(each.isascii() and each.isdigit() for each in found):
        raise GraphPruneError("GP107", f"{text!r} are not seeds", "option --seeds", "write 0,1,2")
    return tuple(map(int, found))


def _range(option: str, what: str) -> Any:
    return _option(
        option, help=f"Shares of {what}: 0.3:0.9:0.1, or 0.3,0.5.", parser=_parser(option), metavar="SHARES",
        rich_help_panel="How far",
    )  # fmt: skip


@dataclass(frozen=True)
class Swept(Choices):
    """Several budgets and criteria; the rest of what to choose is the same for all."""

    macs: Annotated[Any, _range("--macs", "multiply-accumulates that remain")] = None
    params: Annotated[Any, _range("--params", "parameters that remain")] = None
    bytes: Annotated[Any, _range("--bytes", "bytes of weights that remain")] = None
    latency: Annotated[Any, _range("--latency", "the time of one run that remain")] = None
    ratio: Annotated[Any, _range("--ratio", "channels that are removed")] = None
    criterion: Annotated[
        str,
        _option(
            "--criterion",
            help="Criteria, between commas; random and l1 are added.",
            metavar="NAMES",
            show_default=True,
            rich_help_panel="What to choose",
        ),
    ] = "l2"


@dataclass(frozen=True)
class Sweeping:
    """What else is asked of a sweep."""

    recover: Annotated[
        str, _option("--recover", help="Ways to recover: none,bias,least_squares+batch_norm.", show_default=True)
    ] = "none"
    seeds: Annotated[
        Any, _option("--seeds", help="For what draws at random.", parser=_seeds, metavar="N,N", show_default=True)
    ] = "0,1,2"
    metric: Annotated[
        str | None,
        _option(
            "--metric", help="accuracy, or module:callable of outputs and labels, measured as well.", metavar="NAME"
        ),
    ] = None
    json: Annotated[Path | None, _option("--json", help="Write every row to this file as soon as it is there.")] = None
    png: Annotated[Path | None, _option("--png", help="Draw error over cost (extra report).")] = None
    resume: Annotated[bool, _option("--resume", help="Go on with the rows in the file of --json.")] = False
    quiet: Annotated[bool, _option("--quiet", "-q", help="Print errors only.")] = False
    size: Annotated[
        list[str] | None, _option("--size", help="Size of a dynamic axis (repeatable).", metavar="NAME=N")
    ] = None


@taking
def sweep(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="The trained model: .onnx, .pt2 or module:callable.", show_default=False),
    ],
    choices: Swept,
    data: Data,
    sweeping: Sweeping,
    before: Before,
    module: Module,
) -> int:
    """Cut a model in many ways and measure each on calibration data that was held out; nothing is trained.

    graphprune sweep resnet.onnx --macs 0.3:0.9:0.1 --criterion l2,obs --recover none,least_squares \\
    --calibration data.npz --json sweep.json --png sweep.png
    """
    from graphprune.sweep import sweep as run

    arguments = {name: value for name, value in choices.arguments().items() if name not in BUDGETS or value is not None}
    criteria, request, sizes = names(arguments.pop("criterion")), data.needed(), named_sizes(sweeping.size or [])
    _check_files(sweeping)
    console = Console(sweeping.quiet)
    with console.working("reading"):
        source = read(model, before, module, sweeping.seeds[0])
    try:
        found = run(
            source.model, source.example_inputs, calibration=request, criteria=criteria,
            recover=names(sweeping.recover), seeds=sweeping.seeds, metric=sweeping.metric, path=sweeping.json,
            resume=sweeping.resume, tell=console.say, sizes=sizes, **arguments,
        )  # fmt: skip
    except KeyboardInterrupt:
        if sweeping.json is None or not sweeping.json.exists():
            raise
        console.say(f"interrupted: the rows so far are in {sweeping.json}; the same command goes on with --resume")
        raise SystemExit(EXIT_INTERRUPTED) from None
    _show(found, sweeping, console)
    return 0


def _check_files(sweeping: Sweeping) -> None:
    """Find out early what would go wrong. Raises GraphPruneError GP105, GP107 or GP108."""
    from graphprune.output import Outputs

    if sweeping.resume and sweeping.json is None:
        raise GraphPruneError("GP107", "there is nothing to go on from", "option --resume", "add --json PATH")
    if sweeping.json is not None and sweeping.json.exists() and not sweeping.resume:
        remedy = "go on with it by --resume, or name another file"
        raise GraphPruneError("GP107", "there is a file of this name already", str(sweeping.json), remedy)
    if sweeping.png is not None:
        from graphprune.pareto import check_drawing

        check_drawing(sweeping.png)
    for path in (sweeping.json, sweeping.png):
        if path is not None:
            with Outputs(path):
                pass  # that the place can be written is worth knowing before the work


def _show(found: Sweep, sweeping: Sweeping, console: Console) -> None:
    console.show(found.table(), found.to_dict())
    if sweeping.png is not None:
        from graphprune.pareto import draw

        with console.working("drawing"):
            draw(found, sweeping.png)
    written = [str(path) for path in (sweeping.json, sweeping.png) if path is not None]
    if written:
        console.say(f"wrote {', '.join(written)}")
