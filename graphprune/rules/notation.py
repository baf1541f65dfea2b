"""Operators as rows in axis notation, after einops: same letter, same fate.

::

    row("n (g i) *, (g o) i *, (g o)? -> n (g o) *", weight=1)

- a letter is an axis; the same letter everywhere is the same axis;
- ``(a b)`` is a product, outermost first: the size of all but one factor must be known, from another operand or from a
  number given by name;
- ``...`` is any number of axes, broadcast against each other; ``*`` is a window: any number of axes that are not tied
  and stay whole, whose sizes in the output the caller gives;
- ``1`` is an axis of size 1; ``?`` marks an operand that may be absent; a letter may stand in the output only if an
  operand has it.

A row that reduces letters of its ``weight`` operand is a contraction and declares itself as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from graphprune.dims import UNIT, Axis, Prod, find
from graphprune.errors import GraphPruneError
from graphprune.program import Contraction, Letters, Terms, Use
from graphprune.rules.numbers import Entry, now
from graphprune.rules.trace import Operand, Trace, Typed
from graphprune.sizes import Extent, divide, product

Token = str | tuple[str, ...]
_MANY = frozenset({"...", "*"})
_NO_LETTERS = _MANY | {"1"}


def _tokens(text: str) -> list[Token]:
    found: list[Token] = []
    for group, single in re.findall(r"\(([^)]*)\)|(\.\.\.|\*|\w+)", text):
        found.append(tuple(group.split()) if group else single)
    return found


@dataclass(frozen=True)
class Row:
    """One operator in axis notation; call it with a trace and operands. Letters of ``whole`` are pinned, letters of
    ``inexact`` change statistics when cut; ``weight`` is the operand with the parameters of a contraction, which
    ``scatters`` where its kernel is applied once per input position (and not once per output position)."""

    text: str
    weight: int | None = None
    whole: str = ""
    inexact: str = ""
    scatters: bool = False
    roles: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> list[list[Token]]:
        return [_tokens(part.rstrip("? ")) for part in self.text.split("->")[0].split(",")]

    @cached_property
    def output(self) -> list[Token]:
        return _tokens(self.text.split("->")[1])

    def __call__(
        self,
        trace: Trace,
        operands: Sequence[Operand | None],
        numbers: Mapping[str, Entry] | None = None,
        window: Sequence[Extent] = (),
    ) -> Typed:
        """The output type. ``numbers`` gives sizes of factors by letter, ``window`` the output sizes of ``*``."""
        if self.weight is not None and (len(operands) <= self.weight or operands[self.weight] is None):
            raise ValueError("its weight is missing")
        match = _Match(trace, dict(numbers or {}))
        for tokens, operand in zip(self.inputs, operands, strict=False):
            if operand is not None:
                match.operand(tokens, operand)
        for letter in self.whole:
            trace.whole(match.letters[letter], f"{trace.node.op} needs it whole")
        for letter in self.inexact:
            trace.inexact(match.letters[letter])
        axes = match.output(self.output, window)
        if self.weight is not None:
            self._declare(trace, match, operands)
        return Typed(axes)

    @cached_property
    def shares(self) -> _Shares:
        """What each letter does in the contraction of a row with a weight."""
        assert self.weight is not None
        data = next(i for i in range(len(self.inputs)) if i != self.weight)
        in_weight = [letter for token in self.inputs[self.weight] for letter in _letters(token)]
        in_data = {letter for token in self.inputs[data] for letter in _letters(token)}
        named = [letter for token in self.output for letter in _letters(token)]
        reduced = [letter for letter in in_weight if letter not in named]
        return _Shares(
            data=data,
            out=[letter for letter in in_weight if letter in named and letter not in in_data],
            reduced=reduced,
            stationary=[letter for letter in in_weight if letter in named and letter in in_data],
            swept=[*in_weight, *(letter for letter in named if letter not in in_weight)],
            places=[i for i, token in enumerate(self.inputs[self.weight]) if set(_letters(token)) & set(reduced)],
            whole=not any("..." in tokens for tokens in (*self.inputs, self.output)),
        )

    def _declare(self, trace: Trace, match: _Match, operands: Sequence[Operand | None]) -> None:
        weight = None if self.weight is None else operands[self.weight]
        if weight is None or self.weight is None:
            raise ValueError("its weight is missing")
        shares = self.shares
        kernel = weight.axes[len(self.inputs[self.weight]) - 1 :] if "*" in self.inputs[self.weight] else []
        source = operands[shares.data]
        swept = source.axes[-len(kernel) :] if self.scatters and kernel and source is not None else match.windows
        trace.contract(
            Contraction(
                trace.node,
                weight.use,
                tuple(weight.axes),
                out=match.these(shares.out),
                reduced=match.these(shares.reduced),
                stationary=match.these(shares.stationary),
                macs=(*match.these(shares.swept), *kernel, *swept, *match.spread),
                masks=tuple((weight.use, place, weight.axes[place]) for place in shares.places),
                activation=_use(operands, shares.data),
                bias=_use(operands, self.roles.get("bias")),
                scale=_use(operands, self.roles.get("scale")),
                zero_point=_use(operands, self.roles.get("zero_point")),
                window=len(kernel),
                terms=self._terms(match, len(kernel)) if shares.whole else None,
            )
        )

    def _terms(self, match: _Match, kernel: int) -> Terms:
        """The same in letters, where the row has no axes but those with letters and the window."""
        weight, data, output = self._spelt(kernel)
        named = {letter for axis in weight for letter in axis if letter in match.letters}
        return Terms(weight, data, output, {letter: match.letters[letter] for letter in sorted(named)})

    def _spelt(self, kernel: int) -> tuple[Letters, Letters, Letters]:
        """The letters of each axis of weight, data and output, where the window has so many axes."""
        if kernel not in self._spellings:
            assert self.weight is not None
            windows = (("k", self.inputs[self.weight]), ("s", self.inputs[self.shares.data]), ("p", self.output))
            weight, data, output = (_spelt(tokens, letter, kernel) for letter, tokens in windows)
            self._spellings[kernel] = weight, data, output
        return self._spellings[kernel]

    @cached_property
    def _spellings(self) -> dict[int, tuple[Letters, Letters, Letters]]:
        return {}


@dataclass(frozen=True)
class _Shares:
    """The letters of a row with a weight by what they do.

    ``data`` is the operand that is contracted with the weight, ``places`` are the axes of the weight that are reduced;
    ``whole``: every axis has a letter or belongs to the window.
    """

    data: int
    out: list[str]
    reduced: list[str]
    stationary: list[str]
    swept: list[str]
    places: list[int]
    whole: bool


def checked_row(name: str, text: str) -> Row:
    """A row that a user wrote for the operator of this name. Raises GraphPruneError GP107 where it cannot be one.

    >>> checked_row("my.domain:Scale", "n c ..., c -> n c ...").output
    ['n', 'c', '...']
    """
    if text.count("->") != 1:
        raise GraphPruneError(
            "GP107", f"the rule {text!r} has no single arrow", name, "write it like 'n c ..., c -> n c ...'"
        )
    row = Row(text)
    known = {letter for token in (t for part in row.inputs for t in part) for letter in token}
    if missing := {letter for token in row.output for letter in token} - known:
        raise GraphPruneError("GP107", f"the rule {text!r} makes {', '.join(sorted(missing))} out of nothing", name)
    return row


def _use(operands: Sequence[Operand | None], index: int | None) -> Use | None:
    operand = operands[index] if index is not None and index < len(operands) else None
    return None if operand is None else operand.use


def _letters(token: Token) -> tuple[str, ...]:
    return token if isinstance(token, tuple) else () if token in _NO_LETTERS else (token,)


def _spelt(tokens: list[Token], window: str, count: int) -> Letters:
    """The letters of each axis; those of a window are numbered."""
    found: list[tuple[str, ...]] = []
    for token in tokens:
        if token == "*":
            found.extend((f"{window}{place}",) for place in range(count))
        else:
            found.append(_letters(token))
    return tuple(found)


class _Match:
    """Letters bound to axes while a row is matched against operands."""

    def __init__(self, trace: Trace, numbers: dict[str, Entry]):
        self.trace = trace
        self.numbers = numbers
        self.letters: dict[str, Axis] = {}
        self.spread: list[Axis] = []
        self.windows: list[Axis] = []

    def these(self, letters: Iterable[str]) -> tuple[Axis, ...]:
        """The axes of letters, in order."""
        return tuple(self.letters[letter] for letter in letters)

    def operand(self, tokens: list[Token], operand: Operand) -> None:
        axes = operand.axes
        many = next((i for i, token in enumerate(tokens) if token in _MANY), None)
        if many is None:
            spread: list[Axis] = []
            pairs = list(zip(tokens, axes, strict=False))
        else:
            after = len(tokens) - many - 1
            spread = list(axes[many : len(axes) - after])
            pairs = [
                *zip(tokens[:many], axes, strict=False),
                *zip(tokens[many + 1 :], axes[len(axes) - after :], strict=False),
            ]
        for token, axis in pairs:
            self.bind(token, axis)
        if many is not None and tokens[many] == "...":
            self.spread = self.trace.broadcast([self.spread, spread])
        for axis in spread if many is not None and tokens[many] == "*" else []:
            self.trace.structural(axis, f"the window of {self.trace.node.op} slides over it")

    def bind(self, token: Token, axis: Axis) -> None:
        if isinstance(token, tuple):
            self.bind_product(token, axis)
        elif token == "1":
            if axis.size != 1:
                self.trace.whole(axis, f"{self.trace.node.op} expects size 1 here")
        elif token in self.letters:
            self.letters[token] = self.trace.tie(self.letters[token], axis)
        else:
            self.letters[token] = axis

    def bind_product(self, token: tuple[str, ...], axis: Axis) -> None:
        rest = axis
        for place, letter in enumerate(token[:-1]):
            size = self.size(letter)
            if size is None:
                inner = [self.size(other) for other in token[place + 1 :]]
                size = divide(rest.size, product(part for part in inner if part is not None)) or 1
            left, rest = self.trace.factor(rest, size)
            self.name(letter, left)
        self.name(token[-1], rest)

    def name(self, letter: str, axis: Axis) -> None:
        if letter in self.numbers and letter not in self.letters:
            self.trace.require(self.numbers[letter], axis)
        self.letters[letter] = self.trace.tie(self.letters[letter], axis) if letter in self.letters else axis

    def size(self, letter: str) -> Extent | None:
        if letter in self.letters:
            return self.letters[letter].size
        return now(self.numbers[letter]) if letter in self.numbers else None

    def output(self, tokens: list[Token], window: Sequence[Extent]) -> list[Axis]:
        axes: list[Axis] = []
        for token in tokens:
            if isinstance(token, tuple):
                axes.append(find(Prod([self.letters[letter] for letter in token])))
            elif token == "...":
                axes.extend(self.spread)
            elif token == "*":
                self.windows = [self.trace.fixed(size, "the positions of a window") for size in window]
                axes.extend(self.windows)
            else:
                axes.append(UNIT if token == "1" else self.letters[token])
        return axes
