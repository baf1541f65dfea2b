"""Contractions: matrix products, einsum and convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.dims import UNIT, Axis
from graphprune.program import Contraction, Sweep, Terms
from graphprune.rules.notation import Row
from graphprune.rules.numbers import Number
from graphprune.rules.trace import Operand, Trace, Typed
from graphprune.sizes import Extent

# n: batch, g: groups, i and o: channels per group. The window of the kernel slides over `*`.
CONV = Row("n (g i) *, (g o) i *, (g o)? -> n (g o) *", weight=1, roles={"bias": 2})
CONV_TRANSPOSE = Row("n (g i) *, (g i) o *, (g o)? -> n (g o) *", weight=1, scatters=True, roles={"bias": 2})
# Quantised convolutions carry one scale and zero point per output channel, or one for all (given as absent).
CONV_QUANTISED = Row(
    "n (g i) *, (g o) i *, (g o)?, (g o)?, (g o)? -> n (g o) *",
    weight=1,
    roles={"scale": 2, "zero_point": 3, "bias": 4},
)


def conv(
    row: Row,
    trace: Trace,
    operands: Sequence[Operand | None],
    groups: Number,
    window: Sequence[Extent],
    sweep: Sweep | None = None,
) -> Typed:
    """Convolutions of any rank, grouped and depthwise: see the rows above. Law: gather the output channels of the
    kernel, gather the input channels of each group, and the result is the gathered result."""
    typed = row(trace, operands, {"g": groups}, window)
    trace.contractions[-1].sweep = sweep
    return typed


def einsum(trace: Trace, equation: str, operands: Sequence[Operand]) -> Typed:
    """Any contraction in Einstein notation: equal letters are tied, letters missing from the output are reduced."""
    terms, result = _parse(equation, [x.rank for x in operands])
    for term, operand in zip(terms, operands, strict=True):
        if len(set(term)) != len(term):
            for axis in operand.axes:
                trace.whole(axis, "einsum takes a diagonal")
    letters = _letters(trace, terms, operands)
    _declare(trace, terms, result, operands, letters)
    return Typed([letters[letter] for letter in result])


def _parse(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """Letters of each operand and of the result; an ellipsis becomes letters of its own, counted from the right."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms, dots = [], 0
    for text, rank in zip(left.split(","), ranks, strict=True):
        count = rank - len(text.replace("...", "")) if "..." in text else 0
        dots = max(dots, count)
        head, _, tail = text.partition("...")
        terms.append([*head, *(f".{k}" for k in range(count, 0, -1)), *tail])
    spread = [f".{k}" for k in range(dots, 0, -1)]
    if arrow:
        head, found, tail = right.partition("...")
        return terms, [*head, *(spread if found else []), *tail]
    every = [letter for term in terms for letter in term if not letter.startswith(".")]
    return terms, [*spread, *sorted(letter for letter in set(every) if every.count(letter) == 1)]


def _declare(
    trace: Trace, terms: list[list[str]], result: list[str], operands: Sequence[Operand], letters: dict[str, Axis]
) -> None:
    """Declare the contraction; letters that a single operand sums away are statistics, not a sum of products."""
    counts = {letter: sum(letter in term for term in terms) for letter in letters}
    reduced = [letter for letter in letters if letter not in result]
    for letter in reduced:
        if counts[letter] == 1:
            trace.inexact(letters[letter])
    reduced = [letter for letter in reduced if counts[letter] > 1]
    constants = [k for k, x in enumerate(operands) if trace.is_constant(x.value)]
    weight = constants[-1] if constants else None
    at = weight if weight is not None else len(operands) - 1
    others = {letter for k, term in enumerate(terms) if k != at for letter in term}
    masks = [
        (operands[k].use, terms[k].index(letter), letters[letter])
        for letter in reduced
        for k in [at if letter in terms[at] else next(k for k, term in enumerate(terms) if letter in term)]
    ]
    data = next((k for k in range(len(terms)) if k != at), None)
    trace.contract(
        Contraction(
            trace.node,
            None if weight is None else operands[at].use,
            tuple(operands[at].axes),
            out=tuple(letters[x] for x in terms[at] if x in result and x not in others),
            reduced=tuple(letters[x] for x in terms[at] if x in reduced),
            stationary=tuple(letters[x] for x in terms[at] if x in result and x in others),
            macs=tuple(letters.values()),
            masks=tuple(masks),
            activation=None if data is None else operands[data].use,
            terms=_terms(terms, result, at, letters) if len(terms) == 2 else None,
        )
    )


def _terms(terms: list[list[str]], result: list[str], at: int, letters: dict[str, Axis]) -> Terms:
    weight, data, made = (tuple((letter,) for letter in term) for term in (terms[at], terms[1 - at], result))
    return Terms(weight, data, made, {letter: letters[letter] for letter in terms[at]})


def matmul(
    trace: Trace, a: Operand, b: Operand, *, swap_a: bool = False, swap_b: bool = False, bias: Operand | None = None
) -> Typed:
    """``... m k, ... k n -> ... m n`` as NumPy defines it, vectors included; ``swap`` exchanges the last two axes."""
    left, right = [f"a{k}" for k in range(a.rank)], [f"b{k}" for k in range(b.rank)]
    left[-1] = right[-2 if b.rank > 1 else -1] = "k"
    if swap_a and a.rank > 1:
        left[-2:] = left[-2:][::-1]
    if swap_b and b.rank > 1:
        right[-2:] = right[-2:][::-1]
    batch = max(a.rank, b.rank, 2) - 2
    for term in (left, right):
        for place in range(len(term) - 2):
            term[place] = f".{batch - (len(term) - 2 - place)}"
    rows = [x for x in left[-2:] if x != "k"] if a.rank > 1 else []
    columns = [x for x in right[-2:] if x != "k"] if b.rank > 1 else []
    result = [f".{k}" for k in range(batch) if f".{k}" in left or f".{k}" in right] + rows + columns
    letters = _letters(trace, [left, right], [a, b])
    if bias is not None:
        for letter, axis in zip(result[::-1], bias.axes[::-1], strict=False):
            if axis.size != 1:
                letters[letter] = trace.tie(letters[letter], axis)
    _declare(trace, [left, right], result, [a, b], letters)
    if bias is not None:
        trace.contractions[-1].bias = bias.use
    return Typed([letters[letter] for letter in result])


def grouped(trace: Trace, x: Operand, weight: Operand, ends: Operand, bias: Operand | None = None) -> Typed:
    """``t i, e i o, e, o? -> t o``: a matrix for each group of consecutive rows; ``ends`` says where the groups end."""
    rows, inputs = x.axes
    groups, reduced, out = weight.axes
    trace.tie(inputs, reduced)
    trace.pin(groups, "GP207", "rows are assigned to it by position")
    trace.tie(groups, ends.axes[0])
    trace.whole(rows, "it is cut into runs by position")
    if bias is not None:
        trace.tie(out, bias.axes[-1])
    trace.contract(
        Contraction(
            trace.node,
            weight.use,
            tuple(weight.axes),
            out=(out,),
            reduced=(reduced,),
            stationary=(groups,),
            macs=(rows, reduced, out),
            masks=((weight.use, 1, reduced),),
            activation=x.use,
            bias=None if bias is None else bias.use,
        )
    )
    return Typed([rows, out])


def _letters(trace: Trace, terms: list[list[str]], operands: Sequence[Operand]) -> dict[str, Axis]:
    letters: dict[str, Axis] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, axis in zip(term, operand.axes, strict=True):
            known = letters.get(letter, UNIT)
            letters[letter] = axis if known.size == 1 else known if axis.size == 1 else trace.tie(known, axis)
    return letters
