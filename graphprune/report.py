"""What a person wants to know about a pruned model, in one table; the same as data for machines.

A report holds numbers that were counted or measured; a saving that is not physical has no row. Plain text, no colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from graphprune.codes import CODES
from graphprune.errors import one_line

if TYPE_CHECKING:
    from graphprune.analysis import Analysis, Refusal
    from graphprune.cost import Cost
    from graphprune.verify import Verification

_MOST_PLACES = 3
_NO_REMEDY = "none is needed"


@dataclass(frozen=True)
class Skipped:
    """The axes of weights that are kept for one reason. places: where the reason is, at most a few of them."""

    code: str
    title: str
    axes: int
    places: tuple[str, ...]
    reason: str
    remedy: str


@dataclass(frozen=True)
class Timing:
    """Two models timed in turns.

    dense, pruned: seconds for one run, the median
    speedup: dense over pruned, the median of pairs, with the bounds `low` and `high` of its confidence interval
    noise:   the relative difference that the dense model shows to itself
    """

    dense: float
    pruned: float
    speedup: float
    low: float
    high: float
    noise: float
    rounds: int

    @property
    def differs(self) -> bool:
        """Whether the difference is beyond the noise."""
        return self.low > 1 + self.noise or self.high < 1 - self.noise

    @property
    def change(self) -> str:
        """The verdict in words."""
        if not self.differs:
            return f"no difference beyond noise (±{self.noise:.1%})"
        return f"{self.speedup:.2f}x ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Report:
    """The outcome of pruning one model.

    model:     the file or name of the model
    dense, pruned: costs before and after (see `graphprune.cost.Cost` for the units)
    groups, cut: how many groups there are and how many of them lost something
    blocks:    residual blocks that were left out, by name
    free:      dead and constant entries, whose removal changes nothing: how many there are, how many were removed; None
               when they were not looked for
    skipped:   why axes of weights were kept, by code
    verification: the outcome of the checks, None when they were not run
    files:     bytes of the files before and after, when both are known
    timing:    measured run times, when asked
    predicted: seconds of one run before and after, as a table of latencies says, where time was a budget
    written:   the files that were written
    notes:     anything else worth a line
    """

    model: str
    dense: Cost
    pruned: Cost
    groups: int
    cut: int
    blocks: tuple[str, ...] = ()
    free: tuple[int, int] | None = None
    skipped: tuple[Skipped, ...] = ()
    verification: Verification | None = None
    files: tuple[int, int] | None = None
    timing: Timing | None = None
    predicted: tuple[float, float] | None = None
    written: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Name, dense, pruned and change of every quantity, as text."""
        rows = [
            ("parameters", *_counts(self.dense.parameters, self.pruned.parameters)),
            ("non-zeros", *_counts(self.dense.nonzeros, self.pruned.nonzeros)),
            ("weights", *_counts(self.dense.bytes, self.pruned.bytes, "B")),
            ("MACs", *_counts(self.dense.macs, self.pruned.macs)),
            ("peak activations", *_counts(self.dense.peak_activation_bytes, self.pruned.peak_activation_bytes, "B")),
        ]
        if self.files is not None:
            rows.insert(3, ("file", *_counts(*self.files, "B")))
        if self.predicted is not None:
            dense, pruned = self.predicted
            row = (f"{dense * 1e3:.3f} ms", f"{pruned * 1e3:.3f} ms", f"{pruned / dense - 1:+.1%}")
            rows.append(("latency, planned", *row))
        if self.timing is not None:
            timing = self.timing
            rows.append(("latency", f"{timing.dense * 1e3:.3f} ms", f"{timing.pruned * 1e3:.3f} ms", timing.change))
        return rows

    def to_text(self) -> str:
        """One table, then what was skipped, what was checked and what was written."""
        plural = "block" if len(self.blocks) == 1 else "blocks"
        left_out = f", {len(self.blocks)} residual {plural} left out" if self.blocks else ""
        lines = [f"{one_line(self.model)}: {self.cut} of {self.groups} groups cut{left_out}", ""]
        lines += table(("", "dense", "pruned", "change"), self.rows(), right=(1, 2))
        if self.free is not None and self.free[0]:
            lines += ["", free_line(*self.free)]
        if self.skipped:
            lines += ["", "kept on purpose:"]
            lines += skipped_lines(self.skipped)
        lines += ["", *map(one_line, self.notes)] if self.notes else []
        if self.verification is not None:
            lines += ["", verdict(self.verification)]
        if self.written:
            lines += ["", "wrote " + ", ".join(map(one_line, self.written))]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data: counts, bytes and seconds, as JSON takes them."""
        found: dict[str, Any] = {
            "model": self.model,
            "dense": asdict(self.dense),
            "pruned": asdict(self.pruned),
            "groups": self.groups,
            "cut": self.cut,
            "blocks": list(self.blocks),
            "free": None if self.free is None else {"entries": self.free[0], "removed": self.free[1]},
            "skipped": [asdict(each) for each in self.skipped],
            "verification": None if self.verification is None else verification_dict(self.verification),
            "files": None if self.files is None else {"dense": self.files[0], "pruned": self.files[1]},
            "timing": None if self.timing is None else {**asdict(self.timing), "differs": self.timing.differs},
            "predicted": None
            if self.predicted is None
            else dict(zip(("dense", "pruned"), self.predicted, strict=True)),
            "written": list(self.written),
            "notes": list(self.notes),
        }
        return found

    def with_(self, **changes: Any) -> Report:
        """A copy with some fields replaced."""
        return replace(self, **changes)


def free_line(entries: int, removed: int | None = None) -> str:
    """How many entries are dead or constant, and how many of these a cut takes.

    >>> free_line(1)
    '1 entry is dead or constant: graphprune clean removes it, and nothing changes'
    >>> free_line(5, 3)
    '5 entries are dead or constant (3 cut here): graphprune clean removes them, and nothing changes'
    """
    here = "" if removed is None else f" ({removed} cut here)"
    what, them = ("entry is", "it") if entries == 1 else ("entries are", "them")
    return f"{entries} {what} dead or constant{here}: graphprune clean removes {them}, and nothing changes"


def skipped(analysis: Analysis) -> tuple[Skipped, ...]:
    """Why axes of weights cannot be pruned, grouped by code: those with something to do about them first."""
    by_code: dict[str, list[Refusal]] = {}
    for refusal in analysis.refusals:
        by_code.setdefault(refusal.code, []).append(refusal)
    found = []
    for code, refusals in by_code.items():
        places = tuple(dict.fromkeys(refusal.where for refusal in refusals if refusal.where))
        row = CODES[code]
        found.append(Skipped(code, row.title, len(refusals), places, refusals[0].reason, row.remedy))
    return tuple(sorted(found, key=lambda each: (each.remedy.startswith(_NO_REMEDY), each.code)))


def skipped_lines(found: Iterable[Skipped]) -> Iterator[str]:
    """Two lines a code: what and where, and the remedy if there is one."""
    for each in found:
        shown = ", ".join(map(one_line, each.places[:_MOST_PLACES]))
        more = f" and {len(each.places) - _MOST_PLACES} more" if len(each.places) > _MOST_PLACES else ""
        plural = "axis" if each.axes == 1 else "axes"
        yield f"  {each.code} {each.axes} {plural}: {each.title}" + (f" ({shown}{more})" if shown else "")
        if not each.remedy.startswith(_NO_REMEDY):
            yield f"        {one_line(each.reason)}"
            yield f"    fix {each.remedy}"


def verdict(verification: Verification) -> str:
    """The checks in one line, or the failed ones in a line each."""
    failed = [check for check in verification.checks if not check.ok]
    if verification.ok:
        oracles = ", ".join(dict.fromkeys(check.oracle for check in verification.checks))
        worst = max((check.error for check in verification.checks if check.error < check.tolerance), default=0.0)
        return f"verified: {len(verification.checks)} checks ({oracles}), largest difference {worst:.1e}"
    return "\n".join(["NOT VERIFIED", *(f"  {check}" for check in failed)])


def verification_dict(verification: Verification) -> dict[str, Any]:
    """The checks as plain data."""
    return {"ok": verification.ok, "checks": [_finite(asdict(check)) for check in verification.checks]}


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: null stands for it."""
    return {k: None if isinstance(v, float) and v in (float("inf"), float("-inf")) else v for k, v in row.items()}


def written(value: Any) -> Any:
    """Plain data as JSON takes it: null stands for what is not a number, "inf" for infinity.

    >>> written({"error": float("inf"), "rows": (1.5, float("nan"))})
    {'error': 'inf', 'rows': [1.5, None]}
    """
    if isinstance(value, Mapping):
        return {key: written(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [written(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines of an aligned table; the columns in `right` are aligned to the right.

    >>> print(*table(("name", "size"), [("a", "10"), ("bb", "9")], right=(1,)), sep="\\n")
     name  size
     a       10
     bb       9
    """
    widths = [max(len(row[k]) for row in (heads, *rows)) for k in range(len(heads))]
    lines = []
    for row in (heads, *rows):
        cells = [
            cell.rjust(w) if k in right else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " + "  ".join(cells)).rstrip())
    return lines


def quantity(number: float, unit: str = "") -> str:
    """A count with three or four digits and a prefix of thousands.

    >>> quantity(25_557_032), quantity(980, "B"), quantity(102_400_000, "B")
    ('25.56 M', '980 B', '102.4 MB')
    """
    size = abs(number)
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            scaled = number / limit
            return f"{scaled:.{2 if abs(scaled) < 100 else 1}f} {prefix}{unit}"
    return f"{number:g} {unit}".rstrip()


def _counts(dense: float, pruned: float, unit: str = "") -> tuple[str, str, str]:
    change = f"{pruned / dense - 1:+.1%}" if dense and pruned != dense else "0.0%"
    return quantity(dense, unit), quantity(pruned, unit), change
