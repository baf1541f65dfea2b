"""The options that several commands share, each defined once: a dataclass is a set of options, its fields are they."""

from __future__ import annotations

import functools
import inspect
import math
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from graphprune.allocate import ALLOCATORS
from graphprune.cli.console import Console
from graphprune.criteria import CRITERIA
from graphprune.errors import GraphPruneError

BUDGETS = ("macs", "params", "bytes", "latency", "ratio")


def _share(text: str, what: str, lowest_excluded: bool) -> float:
    """A share from `0.6` or `60%`. Raises GraphPruneError GP107."""
    plain = text.strip()
    try:
        number = float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError:
        raise GraphPruneError("GP107", f"{text!r} is not a number", what, "write 0.6 or 60%") from None
    inside = 0 < number <= 1 if lowest_excluded else 0 <= number < 1
    if math.isnan(number) or not inside:
        bounds = "above 0 and at most 1" if lowest_excluded else "from 0 to below 1"
        remedy = f"write {number:g}% or {number / 100:g}" if 1 < number <= 100 else "write 0.6 or 60%"
        raise GraphPruneError("GP107", f"{text!r} is not a share {bounds}", what, remedy)
    return number


def _remaining(name: str) -> Callable[[str], float]:
    return lambda text: _share(text, f"option {name}", True)


def _removed(name: str) -> Callable[[str], float]:
    return lambda text: _share(str(text), f"option {name}", False)  # the default comes as a number


def _alignment(text: str) -> int | str:
    text = str(text)  # the default comes as a number
    if text == "auto":
        return text
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        what = f"{text!r} is not a width to align to"
        raise GraphPruneError("GP107", what, "option --align", "write a whole number such as 8, or auto")
    return int(text)


def named_sizes(texts: list[str]) -> dict[str, int]:
    """Sizes of dynamic axes from `name=number`. Raises GraphPruneError GP107."""
    found = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        if not (equals and name and number.isascii() and number.isdigit() and int(number) > 0):
            what = f"{text!r} is not a name and a size"
            raise GraphPruneError("GP107", what, "option --size", "write name=number, such as batch=1")
        found[name] = int(number)
    return found


def _option(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, show_default=more.pop("show_default", False), **more)


_BUDGET: dict[str, Any] = {"metavar": "SHARE", "rich_help_panel": "How far"}
_CHOICE: dict[str, Any] = {"rich_help_panel": "What to choose", "show_default": True}


@dataclass(frozen=True)
class Choices:
    """How far to prune and what to choose: the arguments of `graphprune.api.plan`."""

    macs: Annotated[
        float | None,
        _option(
            "--macs",
            help="Share of multiply-accumulates that may remain: 0.6 or 60%.",
            parser=_remaining("--macs"),
            **_BUDGET,
        ),
    ] = None
    params: Annotated[
        float | None,
        _option("--params", help="Share of parameters that may remain.", parser=_remaining("--params"), **_BUDGET),
    ] = None
    bytes: Annotated[
        float | None,
        _option(
            "--bytes", help="Share of the bytes of weights that may remain.", parser=_remaining("--bytes"), **_BUDGET
        ),
    ] = None
    latency: Annotated[
        float | None,
        _option("--latency", help="Share of the time of one run that may remain, by measured times of layers.",
                parser=_remaining("--latency"), **_BUDGET),
    ] = None  # fmt: skip
    ratio: Annotated[
        float | None,
        _option("--ratio", help="Share of channels to remove.", parser=_removed("--ratio"), **_BUDGET),
    ] = None
    criterion: Annotated[
        str,
        _option(
            "--criterion",
            help=f"How channels are scored: {', '.join(CRITERIA.builtin)}; graphprune criteria says what they need.",
            **_CHOICE,
        ),
    ] = "l2"
    reduction: Annotated[
        str, _option("--reduction", help="How scores of coupled tensors become one: sum, mean, max, l2.", **_CHOICE)
    ] = "mean"
    normalize: Annotated[
        str,
        _option("--normalize", help="How groups are made comparable: none, sum, mean, max, standard, lamp.", **_CHOICE),
    ] = "mean"
    allocate: Annotated[
        str,
        _option("--allocate", help=f"How the cut is divided among groups: {', '.join(ALLOCATORS.builtin)}.", **_CHOICE),
    ] = "global"
    max_ratio: Annotated[
        float,
        _option(
            "--max-ratio",
            help="Largest share of a group that may go.",
            parser=_removed("--max-ratio"),
            metavar="SHARE",
            **_CHOICE,
        ),
    ] = 0.9
    min_width: Annotated[
        int, _option("--min-width", help="Fewest channels that stay in a group.", min=1, **_CHOICE)
    ] = 1
    align: Annotated[
        Any,
        _option(
            "--align",
            help="Keep widths that are multiples of this; or auto.",
            parser=_alignment,
            metavar="N|auto",
            **_CHOICE,
        ),
    ] = 1
    ignore: Annotated[
        list[str],
        _option(
            "--ignore",
            help="Leave alone what matches this pattern (repeatable).",
            metavar="PATTERN",
            rich_help_panel="What to choose",
        ),
    ] = field(default_factory=list)
    only: Annotated[
        list[str],
        _option(
            "--only",
            help="Prune only what matches this pattern (repeatable).",
            metavar="PATTERN",
            rich_help_panel="What to choose",
        ),
    ] = field(default_factory=list)
    heads: Annotated[str, _option("--heads", help="Of attention: count, width or both.", **_CHOICE)] = "both"
    latency_table: Annotated[
        Path | None,
        _option("--latency-table", help="File of measured times, completed where it lacks some; else one in the cache.",
                metavar="FILE", rich_help_panel="How far"),
    ] = None  # fmt: skip
    threads: Annotated[
        int | None,
        _option("--threads", help="Of --latency: threads to measure on; else as many as the runtime takes.", min=1,
                rich_help_panel="How far"),
    ] = None  # fmt: skip

    def arguments(self, needed: bool = True) -> dict[str, Any]:
        """As keyword arguments of `graphprune.api.plan`. Raises GraphPruneError GP107 where there is no budget and one
        is needed."""
        if needed and all(getattr(self, name) is None for name in BUDGETS):
            remedy = "add --macs 0.6 to keep 60 % of the multiplications, or --params, --bytes, --latency or --ratio"
            raise GraphPruneError("GP107", "it was not said how far to prune", "", remedy)
        if self.latency is None and (self.latency_table or self.threads):
            what = f"--{'latency-table' if self.latency_table else 'threads'} is about times, and they are no budget"
            raise GraphPruneError("GP107", what, "", "add --latency 0.6")
        return {each.name: getattr(self, each.name) for each in fields(self)}


def _refuse_without(options: Any, missing: str, about: str, remedy: str) -> None:
    """Raises GraphPruneError GP107 for an option that says something of what is not asked for: it would be ignored."""
    for each in fields(options):
        if each.name != missing and getattr(options, each.name) != each.default:
            what = f"--{each.name.replace('_', '-')} is about {about}, and there is none"
            raise GraphPruneError("GP107", what, "", remedy)


def _numbers(text: str) -> tuple[float, ...]:
    """Numbers between commas. Raises GraphPruneError GP107."""
    try:
        return tuple(float(each) for each in str(text).split(","))
    except ValueError:
        what = f"{text!r} is neither a number nor several between commas"
        raise GraphPruneError("GP107", what, "options --mean and --std", "write 0.485,0.456,0.406") from None


@dataclass(frozen=True)
class Steps:
    """In how many cuts."""

    steps: Annotated[
        int,
        _option("--steps", help="Reach the budget in so many cuts; what is left is scored anew after each.", min=1,
                **_CHOICE),
    ] = 1  # fmt: skip


def _blocks(text: str) -> int | str:
    """A number of blocks, or auto. Raises GraphPruneError GP107."""
    text = str(text)
    if text != "auto" and (not (text.isascii() and text.isdigit()) or int(text) < 1):
        what = f"{text!r} is neither a whole number from 1 on nor auto"
        raise GraphPruneError("GP107", what, "option --depth", "write 2, or auto beside --macs")
    return text if text == "auto" else int(text)


@dataclass(frozen=True)
class Depth:
    """How many residual blocks to leave out: arguments of `graphprune.api.plan`."""

    depth: Annotated[
        Any,
        _option("--depth", help="Leave out so many residual blocks, and cut widths to the rest of a budget; auto: the "
                "best number, measured on held-out calibration data.",
                metavar="N|auto", parser=_blocks, rich_help_panel="How far"),
    ] = None  # fmt: skip
    depth_by: Annotated[
        str, _option("--depth-by", help="Which blocks: block_influence, angular or random.", **_CHOICE)
    ] = "block_influence"
    depth_unit: Annotated[
        int,
        _option("--depth-unit", help="Blocks that go together: 2 for layers of attention and feed-forward.", min=1,
                **_CHOICE),
    ] = 1  # fmt: skip

    def arguments(self) -> dict[str, Any]:
        """As keyword arguments of `graphprune.api.plan`; none where no block is to go. Raises GraphPruneError GP107
        where it is said which, and not how many."""
        if self.depth is None:
            _refuse_without(self, "depth", "residual blocks to leave out", "add --depth 2")
            return {}
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def enough(self) -> bool:
        """Whether this says how far to prune, without a budget."""
        return isinstance(self.depth, int)


_DATA: dict[str, Any] = {"rich_help_panel": "Calibration data"}


@dataclass(frozen=True)
class Data:
    """What to calibrate with: the arguments of `graphprune.calibration`."""

    calibration: Annotated[
        str | None,
        _option(
            "--calibration",
            help="For criteria that need inputs: .npz, .npy, a folder of images, a text, module:callable, or noise.",
            metavar="SOURCE",
            **_DATA,
        ),
    ] = None
    samples: Annotated[int | None, _option("--samples", help="Most samples to take: 512.", min=1, **_DATA)] = None
    batch: Annotated[int | None, _option("--batch", help="Samples of a batch: 32.", min=1, **_DATA)] = None
    labels: Annotated[
        str | None,
        _option("--labels", help="Labels (.npy), or folders: those that images are in.", metavar="FILE", **_DATA),
    ] = None
    tokenizer: Annotated[
        str | None,
        _option("--tokenizer", help="Of a text: folder or name of one of transformers, or bytes.", **_DATA),
    ] = None
    length: Annotated[int | None, _option("--length", help="Tokens of a sequence: 128.", min=1, **_DATA)] = None
    mean: Annotated[
        Any,
        _option("--mean", help="Subtracted from images in 0..1.", parser=_numbers, metavar="NUMBERS", **_DATA),
    ] = None
    std: Annotated[
        Any, _option("--std", help="What they are divided by then.", parser=_numbers, metavar="NUMBERS", **_DATA)
    ] = None

    def request(self) -> Any:
        """For the option `calibration` of `graphprune.api.plan`. Raises GraphPruneError GP107 where options are given
        for data, and no data is."""
        if self.calibration is None:
            _refuse_without(self, "calibration", "calibration data", "add --calibration SOURCE")
            return None
        from graphprune.data.calibration import Request

        found = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "calibration"}
        given = {name: value for name, value in found.items() if value is not None}
        if given.get("labels", "folders") != "folders":
            given["labels"] = Path(given["labels"])
        return Request(self.calibration, given)

    def needed(self) -> Any:
        """As :meth:`request`, for a command that measures errors. Raises GraphPruneError GP704 where no data is
        given."""
        if (request := self.request()) is None:
            remedy = "add --calibration SOURCE; --calibration noise where there is no data"
            what = "errors are measured on data, and there is none"
            raise GraphPruneError("GP704", what, "option calibration", remedy)
        return request


@dataclass(frozen=True)
class Output:
    """How to say things."""

    json: Annotated[bool, _option("--json", help="Print JSON on stdout.", rich_help_panel="Output")] = False
    quiet: Annotated[
        bool, _option("--quiet", "-q", help="Print errors only (and JSON if asked).", rich_help_panel="Output")
    ] = False

    @property
    def console(self) -> Console:
        """Where the command speaks."""
        return Console(self.quiet, self.json)


@dataclass(frozen=True)
class Inputs:
    """What to feed and count with."""

    seed: Annotated[
        int, _option("--seed", help="Seed of everything random.", show_default=True, rich_help_panel="Output", min=0)
    ] = 0
    size: Annotated[
        list[str],
        _option(
            "--size",
            help="Size of a dynamic axis, such as batch=1 (repeatable).",
            metavar="NAME=N",
            rich_help_panel="Output",
        ),
    ] = field(default_factory=list)

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of dynamic axes by name."""
        return named_sizes(self.size)


@dataclass(frozen=True)
class Before:
    """What to do to the model before pruning."""

    optimize: Annotated[
        bool, _option("--optimize", help="Fold constants with onnxscript's optimizer first.", rich_help_panel="Before")
    ] = False
    opset: Annotated[
        int | None,
        _option("--opset", help="Convert to this opset first.", metavar="N", min=1, rich_help_panel="Before"),
    ] = None


@dataclass(frozen=True)
class Writing:
    """What to do with the outcome."""

    no_verify: Annotated[bool, _option("--no-verify", help="Do not check the result.", rich_help_panel="Result")] = (
        False
    )
    keep_failed: Annotated[
        bool, _option("--keep-failed", help="Write the result even if the check fails.", rich_help_panel="Result")
    ] = False
    bench: Annotated[bool, _option("--bench", help="Measure latency with onnxruntime.", rich_help_panel="Result")] = (
        False
    )
    dry_run: Annotated[bool, _option("--dry-run", help="Plan and report, write nothing.", rich_help_panel="Result")] = (
        False
    )
    in_place: Annotated[
        bool, _option("--in-place", help="Allow the output to overwrite the input.", rich_help_panel="Result")
    ] = False

    @staticmethod
    @contextmanager
    def verifying() -> Iterator[None]:
        """While a result is verified: where that cannot be done, it is told how to write it all the same."""
        try:
            yield
        except GraphPruneError as error:
            if error.code == "GP402":
                error.remedy += ", or write it unverified with --no-verify"
            raise


def taking(function: Callable[..., Any]) -> Callable[..., Any]:
    """Replace every parameter of `function` whose type is a dataclass of options by the options themselves."""
    hints = typing.get_type_hints(function, include_extras=True)
    plain, sets = [], {}
    for name, parameter in inspect.signature(function).parameters.items():
        if isinstance(hints[name], type) and hasattr(hints[name], "__dataclass_fields__"):
            sets[name] = hints[name]
        else:
            plain.append(parameter.replace(annotation=hints[name]))
    options = [option for kind in sets.values() for option in _parameters(kind)]

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        made = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in sets.items()}
        return function(**given, **made)

    keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*plain, *options)]
    command.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]  # what inspect.signature reads
    command.__annotations__ = {each.name: each.annotation for each in keyword}
    del command.__wrapped__
    return command


def _parameters(kind: type) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=[] if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(kind)
    ]
