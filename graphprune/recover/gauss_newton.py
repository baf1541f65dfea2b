"""Weights in front of an activation are fitted to what comes out behind it.

Least squares fits a layer to what it computed itself in the dense network. But a layer that lost outputs cannot
compute that any more, and what counts is what the next one makes of those that stay. So where a layer, functions of one
entry (a BatchNorm, an activation) and a second layer follow one another, both are fitted together to what the second
computed in the dense network, as in front of a residual connection the *sum*:

    ``min over W1, b1, W2, b2 of |W2 f(W1 x + b1) + b2 - T|^2``

The second is least squares for every first (variable projection, Golub & Pereyra, 1973, in the form of Kaufman, 1975);
the first takes damped Gauss-Newton steps (Levenberg, 1944; Marquardt, 1963), solved by conjugate gradients with the
Kronecker factors of the curvature (K-FAC, Martens & Grosse, ICML 2015) as preconditioner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from graphprune.calibrate import draw, product
from graphprune.layers import Layer
from graphprune.program import Array, Value
from graphprune.recover.couple import Couple, couple_of
from graphprune.recover.least_squares import Sums, Walk, free, ridges, solved
from graphprune.recover.pair import HELD_OUT, Outcome, Pair, Recovered

_RUN = 128
"""Samples that are drawn together: windows of neighbours overlap, and what they share is computed once."""
_PIECE = 16 * _RUN
"""Samples that are computed together: few enough that what is laid out for them stays in a cache."""
_INPUTS = 256
_PULL = 1e-3
"""What holds back the first layer, and its outputs in the preconditioner, as shares of the mean of a diagonal."""
_FLOOR = 0.1


@dataclass(frozen=True)
class GaussNewton:
    """Least squares for every layer whose inputs changed, after it was fitted together with the layer before it through
    the functions between them.

    ridge, held_out: as for :class:`graphprune.recover.least_squares.LeastSquares`
    steps:   linearisations; directions: of conjugate gradients in each
    samples: of the second layer that both are fitted to, over all cases, where there are so many; more for layers of
             more than 256 inputs, so many for each of them
    damping: of the first step, as a share of the approximate curvature
    thin:    curvature is computed from every so manieth case; gradients and second layers from all
    """

    name: ClassVar[str] = "gauss_newton"

    ridge: float = 1e-4
    held_out: float = HELD_OUT
    steps: int = 2
    directions: int = 4
    samples: int = 65536
    damping: float = 0.01
    thin: int = 2

    def run(self, pair: Pair) -> Recovered:
        """Fit all layers. Raises GraphPruneError GP402 where a model cannot be run, GP701 where there is no data, and
        GP703 for activations that are not finite."""
        with pair.workers() as each:
            walk = Walk(pair, self.ridge, self.held_out, each)
            return Recovered(walk.arrays, tuple(self._outcomes(walk)))

    def _outcomes(self, walk: Walk) -> Iterator[Outcome]:
        pair = walk.pair
        firsts = {small.result: small for _, small in pair.layers}
        couples = [couple_of(pair, small, firsts) for _, small in pair.layers]
        places = {small: place for place, (_, small) in enumerate(pair.layers)}
        begun = {places[each.first] for each in couples if isinstance(each, Couple)}
        saved: dict[int, list[Any]] = {}
        for place, couple in enumerate(couples):
            walk.arrive(place)
            start, (dense, small) = None, pair.layers[place]
            cut = dense.shape[2] != small.shape[2]
            if cut and isinstance(couple, str):
                yield _not_followed(small, couple)
            elif isinstance(couple, Couple):
                states = saved.pop(places[couple.first])
                if cut:
                    joint = _Joint(walk, self, place, couple, states)
                    yield joint.outcome
                    start = joint.start
            if place in begun:
                saved[place] = [walk.small.staged.fork(state) for _, state in walk.states]
            outcome = walk.fit(place, start)
            if outcome is not None:
                yield outcome


def _not_followed(second: Layer, why: str) -> Outcome:
    return Outcome(second.name, np.nan, np.nan, False, f"GP706 not fitted together with the layer before it: {why}")


@dataclass(eq=False)
class _Samples:
    """What the samples of one case need.

    rows:   of the first layer, with a column of ones, ``[groups, samples, inputs + 1]``
    chosen: the numbers of these samples; shape: that of the whole result
    places: for each sample of the second layer, where under its window they are, ``[samples, window]``; the number
            behind the last one stands for the border
    target: what the second layer is to compute, ``[samples, groups, outputs]``
    thinned: whether they are among those that curvature is computed from
    """

    rows: Array
    chosen: Array
    shape: tuple[int, ...]
    places: Array
    target: Array
    thinned: bool


@dataclass(eq=False)
class _Point:
    """Some weights of the first layer, and the best ones of the second for them. For every case what the second reads,
    and the slopes of that by what the first computes."""

    first: Array
    second: Array
    sums: Sums
    inputs: list[Array]
    slopes: list[Array]


class _Refused(Exception):
    """Why two layers are not fitted together."""


class _Joint:
    """Two layers that are fitted together.

    outcome: what became of it; start: what the second has then, to be written with its own fit
    """

    def __init__(self, walk: Walk, options: GaussNewton, place: int, couple: Couple, saved: list[Any]):
        self.walk, self.options, self.place, self.couple = walk, options, place, couple
        self.first, self.second = couple.first, couple.second
        self.follows = walk.pair.follow(self.first), walk.pair.follow(self.second)
        self.window = int(np.prod([self.second.sizes[f"k{k}"] for k in range(self.second.contraction.window)]))
        groups, outputs, inputs = self.second.shape
        self.channels = inputs // self.window
        gain = self.follows[1].gain
        self.gain = np.ones((groups, outputs)) if gain is None else gain.reshape(groups, outputs)
        self.start: Array | None = None
        self.ridge = options.ridge
        try:
            if self.first.stored is None or self.second.stored is None:
                raise _Refused("one of the two has no weight of its own that could be written")
            self.bias = self._bias()
            self.cases, self.judges = self._samples(saved)
            self.outcome = self._fitted(saved)
        except _Refused as refused:
            self.outcome = _not_followed(self.second, str(refused))

    # ------------------------------------------------------------------ samples
    def _samples(self, saved: list[Any]) -> tuple[list[_Samples], list[_Samples]]:
        """The samples that both layers are fitted to, and those that are held out, in pieces: of the last cases, of a
        lone one every second run."""
        walk = self.walk
        data = [walk.small.staged.read(after, self.second.activation) for _, after in walk.states]
        drawn = {shape: self._drawn(shape) for shape in dict.fromkeys(each.shape for each in data)}

        def made(number: int) -> list[_Samples]:
            found = self._pieces(number, saved[number], data[number], *drawn[data[number].shape])
            if number == 0:
                first = drawn[data[0].shape][0][: len(found[0].places)]
                self._checked(found[0], self.second.rows(data[0]).take(first[:_RUN]))
            return found

        cases = list(walk.each(made, range(len(data))))
        if len(cases) == 1:
            return cases[0][::2], cases[0][1::2]
        fitted, held = cases[: -walk.held], cases[-walk.held :]
        return [piece for case in fitted for piece in case], [piece for case in held for piece in case]

    def _pieces(self, number: int, saved: Any, data: Array, chosen: Array, places: Array) -> list[_Samples]:
        """The samples of a case, some runs at a time."""
        target = self.walk.target(self.place, number, chosen)
        rows, found = self.first.rows(self.walk.small.staged.read(saved, self.first.activation)), []
        size = _PIECE if len(self.walk.states) > 1 else min(_PIECE, max(1, len(chosen) // 2))
        for begin in range(0, len(chosen), size):
            here = slice(begin, begin + size)
            thinned = (number if len(self.walk.states) > 1 else begin // (2 * size)) % self.options.thin == 0
            used = np.unique(places[here][places[here] >= 0])
            lookup = np.full(used[-1] + 2, len(used))
            lookup[used] = np.arange(len(used))
            own = rows.take(used).transpose(1, 0, 2)
            if free(self.follows[0]):
                own = np.concatenate([own, np.ones((*own.shape[:2], 1), own.dtype)], axis=2)
            found.append(
                _Samples(np.ascontiguousarray(own), used, data.shape, lookup[places[here]], target[here], thinned)
            )
        return found

    def _drawn(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Which samples of the second layer are taken, and which of the first are under their windows; -1 for none."""
        size, second = int(np.prod(shape)), self.second
        numbers = np.arange(1, size + 1).reshape(shape)
        made = self.first.results(numbers).take()
        sample, channel = np.full(size + 1, -1), np.full(size + 1, -1)
        sample[made] = np.arange(len(made))[:, None, None]
        self.width = made[0].size
        channel[made] = np.arange(self.width).reshape(made.shape[1:])
        rows = second.rows(numbers)
        wanted = self.options.samples * max(_INPUTS, second.shape[2]) // _INPUTS
        most = max(1, wanted // (_RUN * len(self.walk.states)))
        runs = draw(-(-len(rows) // _RUN), most, (self.walk.pair.seed, self.place))
        runs = np.arange(-(-len(rows) // _RUN)) if runs is None else runs
        chosen = (runs[:, None] * _RUN + np.arange(_RUN)).reshape(-1)
        chosen = chosen[chosen < len(rows)]
        few = rows.take(chosen[:_RUN]).reshape(-1, second.shape[0], self.channels, self.window)
        self.order = channel[few].max(axis=(0, 3)).reshape(-1)
        same = (channel[few] == self.order.reshape(1, second.shape[0], self.channels, 1)) | (few == 0)
        under = sample[few]
        if not same.all() or sorted(self.order) != list(range(self.width)) or (under != under[:, :1, :1]).any():
            raise _Refused(f"its outputs are not the inputs of {second.name} one by one")
        maps = np.where(sample[1:] >= 0, sample[1:], 0).astype(np.int32).reshape(shape) + np.int32(1)
        places = second.rows(maps).take(chosen).reshape(len(chosen), -1)[:, : self.window].astype(np.int64) - 1
        if any(len(np.unique(own)) < len(own) for column in places.T for own in [column[column >= 0]]):
            raise _Refused(f"one place of the window of {second.name} reads the same twice")
        return chosen, places

    def _checked(self, case: _Samples, expected: Array) -> None:
        """What is computed here must be what the network computes."""
        values = self._between(case, self._initial())[0]
        found = self._gathered(values, case.places[: len(expected)])
        groups = self.second.shape[0]
        order = found.reshape(groups, len(expected), self.window, self.channels).transpose(1, 0, 3, 2)
        gap = np.abs(order.reshape(expected.shape) - expected).max()
        if not gap <= 1e-3 * max(1e-6, np.abs(expected).max()):
            raise _Refused(f"what {self.second.name} reads is computed in another way")

    # ------------------------------------------------------------------ the two layers
    def _numbers(self, value: Value) -> Array:
        if value.stored is not None:
            return self.walk.numbers(value.stored)
        return np.asarray(self.walk.pair.small.program.dialect.constant(value))

    def _bias(self) -> Array:
        use, (groups, outputs, _) = self.first.contraction.bias, self.first.shape
        value = None if use is None else use.node.inputs[use.index]
        if value is None:
            return np.zeros((groups, 1, outputs), np.float32)
        if not self.walk.pair.small.trace.is_constant(value) or self._numbers(value).size not in {1, groups * outputs}:
            raise _Refused("its bias is not one number for each output")
        found = np.broadcast_to(self._numbers(value).reshape(-1), groups * outputs).reshape(groups, 1, outputs)
        return found.astype(np.float32)

    def _initial(self) -> Array:
        found = self.walk.weights(self.first)
        return found if free(self.follows[0]) else found[:, :-1]

    def _between(self, case: _Samples, first: Array) -> tuple[Array, Array]:
        """What the second layer reads of each sample of the first, and its slope: ``[samples, width]`` both."""
        results = (np.matmul(case.rows, first.astype(case.rows.dtype)) + self.bias).transpose(1, 0, 2)
        dual = self.couple.between(results, self._numbers, case.shape, case.chosen)
        value, slope = (np.broadcast_to(each, results.shape) for each in (dual.value, dual.slope))
        return value.reshape(len(value), -1), slope.reshape(len(slope), -1).astype(results.dtype)

    def _gathered(self, values: Array, places: Array) -> Array:
        """``[groups, samples of the second, window * channels]`` from ``[samples of the first, width]``."""
        padded = np.concatenate([values, np.zeros((1, self.width), values.dtype)])
        found = padded.take(places, axis=0)
        if not np.array_equal(self.order, np.arange(self.width)):
            found = found[:, :, self.order]
        groups = self.second.shape[0]
        spread = found.reshape(len(places), self.window, groups, self.channels).transpose(2, 0, 1, 3)
        return spread.reshape(groups, len(places), -1)

    def _scattered(self, inputs: Array, places: Array, count: int) -> Array:
        """The transpose of :meth:`_gathered`."""
        groups = self.second.shape[0]
        by_group = inputs.reshape(groups, len(places), self.window, self.channels).transpose(1, 2, 0, 3)
        spread = by_group.reshape(len(places) * self.window, self.width)
        spread = np.concatenate([spread, np.zeros((1, self.width), inputs.dtype)])
        found = np.zeros((count, self.width), inputs.dtype)
        for place, column in enumerate(places.T):
            # Under one place of a window no two samples are the same: what goes to each is read, not added one by one.
            source = np.full(count + 1, len(spread) - 1)
            source[column] = np.arange(len(places)) * self.window + place
            found += spread.take(source[:-1], axis=0)
        if np.array_equal(self.order, np.arange(self.width)):
            return found
        back = np.empty_like(found)
        back[:, self.order] = found
        return back

    def _at(self, first: Array) -> _Point:
        """The best second layer for a first one, at all cases that are fitted to."""
        (groups, outputs, inputs), old = self.second.shape, self._second()
        sums = Sums.empty(groups, inputs, outputs)
        point = _Point(first, old, sums, [], [])

        def computed(case: _Samples) -> tuple[Sums, Array, Array]:
            values, slopes = self._between(case, first)
            rows = self._gathered(values, case.places)
            return Sums.of(rows.transpose(1, 0, 2), case.target), rows, slopes

        for own, rows, slopes in self.walk.each(computed, self.cases):
            sums.take(own)
            point.inputs.append(rows)
            point.slopes.append(slopes)
        return replace(point, second=self._best(sums, self.ridge))

    def _best(self, sums: Sums, ridge: float) -> Array:
        return solved(sums, self._second(), ridge, free(self.follows[1]))

    def _gap(self, rows: Array, case: _Samples, second: Array) -> Array:
        """What is missing, weighed by the gain of the BatchNorm behind: ``[groups, samples, outputs]``."""
        weight = second.astype(rows.dtype)
        found = case.target.transpose(1, 0, 2) - np.matmul(rows, weight[:, :-1]) - weight[:, -1:]
        weighed: Array = (found * self.gain[:, None, :]).astype(rows.dtype)
        return weighed

    def _heard(self, first: Array) -> list[Array]:
        """What the second layer reads in the cases that were held out."""
        return list(
            self.walk.each(lambda case: self._gathered(self._between(case, first)[0], case.places), self.judges)
        )

    def _error(self, heard: list[Array], second: Array) -> float:
        """The squared error on cases that were held out, as a share of what is to be computed."""
        error = square = 0.0
        for rows, case in zip(heard, self.judges, strict=True):
            gap, target = self._gap(rows, case, second), case.target * self.gain.astype(np.float32)
            error += float(np.vdot(gap, gap))
            square += float(np.vdot(target, target))
        return error / max(square, 1e-30)

    def _second(self) -> Array:
        """The weights of the second layer as they are, inputs in the order of the samples."""
        groups, outputs, _ = self.second.shape
        found = self.walk.weights(self.second)
        spread = found[:, :-1].reshape(groups, self.channels, self.window, outputs).transpose(0, 2, 1, 3)
        return np.concatenate([spread.reshape(groups, -1, outputs), found[:, -1:]], axis=1)

    def _ordered(self, second: Array) -> Array:
        """The inverse of the order in :meth:`_second`."""
        groups, outputs, _ = self.second.shape
        spread = second[:, :-1].reshape(groups, self.window, self.channels, outputs).transpose(0, 2, 1, 3)
        return np.concatenate([spread.reshape(groups, -1, outputs), second[:, -1:]], axis=1)

    # ------------------------------------------------------------------ steps
    def _fitted(self, saved: list[Any]) -> Outcome:
        walk, damping = self.walk, self.options.damping
        point = self._at(self._initial())
        heard = self._heard(point.first)
        tried = ridges(self.options.ridge)
        errors = walk.each(lambda ridge: self._error(heard, self._best(point.sums, ridge)), tried)
        judged = dict(zip(tried, errors, strict=True))
        self.ridge = min(judged, key=lambda each: judged[each])
        before, point = judged[self.ridge], replace(point, second=self._best(point.sums, self.ridge))
        after = before
        grams = self._grams()
        for _ in range(self.options.steps):
            moved = self._at(point.first + self._step(point, grams, damping))
            error = self._error(self._heard(moved.first), moved.second)
            if error < after:
                point, after, damping = moved, error, damping / 3
            else:
                damping *= 10
        if not after < before:
            note = "GP705 fitted through what follows, the error on held-out data would not be lower"
            return Outcome(self.first.name, before, after, False, note)
        change = point.first - self._initial()
        if not free(self.follows[0]):
            change = np.concatenate([change, np.zeros((len(change), 1, change.shape[2]))], axis=1)
        change[:, :-1] += walk.weights(self.first)[:, :-1]
        walk.write(self.first, self.follows[0], change)
        self.start = self._ordered(point.second)
        list(walk.each(lambda state: walk.small.reach(state, self.second.node), saved))
        walk.states = [(dense, state) for (dense, _), state in zip(walk.states, saved, strict=True)]
        return Outcome(self.first.name, before, after, True)

    def _grams(self) -> Array:
        """``sum x x'`` of the inputs of the first layer, held back: ``[groups, inputs + 1, inputs + 1]``."""
        some = [case for case in self.cases if case.thinned]
        turned = [case.rows.transpose(1, 0, 2) for case in some]
        found = np.asarray(sum(self.walk.each(lambda rows: product(rows, rows), turned)))
        found *= sum(case.rows.shape[1] for case in self.cases) / sum(case.rows.shape[1] for case in some)
        usual = np.diagonal(found, axis1=1, axis2=2)[:, : self.first.shape[2]].mean(axis=1)
        found[:, range(found.shape[1]), range(found.shape[1])] += _PULL * usual[:, None] + 1e-12
        return found

    def _step(self, point: _Point, grams: Array, damping: float) -> Array:
        """Damped Gauss-Newton by preconditioned conjugate gradients: the change of the first layer."""
        weight = (point.second[:, :-1] * self.gain[:, None, :]).astype(np.float32)
        every = range(len(self.cases))
        some = [k for k in every if self.cases[k].thinned]
        share = sum(len(self.cases[k].target) for k in some) / sum(len(case.target) for case in self.cases)
        ridge = self.ridge * np.diagonal(point.sums.gram, axis1=1, axis2=2)[:, :-1].mean(axis=1) + 1e-12
        size = weight.shape[1]
        inner = np.linalg.inv(point.sums.gram[:, :size, :size] + ridge[:, None, None] * np.eye(size))
        curvature = self._curvature(point, weight)
        left, right = np.linalg.inv(grams), np.linalg.inv(curvature)
        each = self.walk.each

        def preconditioned(x: Array) -> Array:
            found: Array = left @ x @ right
            return found

        def moved(k: int, x: Array) -> tuple[Array, Array]:
            """What the second layer would compute more of, and its sums with what that reads."""
            case, slopes = self.cases[k], point.slopes[k]
            change = np.matmul(case.rows, x).transpose(1, 0, 2).reshape(slopes.shape) * slopes
            more = np.matmul(self._gathered(change, case.places), weight)
            return more, np.matmul(point.inputs[k].transpose(0, 2, 1), more).astype(np.float64)

        def returned(k: int, gap: Array) -> Array:
            """What a gap behind the second layer is in the weights of the first."""
            case, slopes = self.cases[k], point.slopes[k]
            back = self._scattered(np.matmul(gap, weight.transpose(0, 2, 1)), case.places, len(slopes)) * slopes
            back = back.reshape(len(back), len(point.first), -1).transpose(1, 0, 2)
            found: Array = np.matmul(case.rows.transpose(0, 2, 1), back).astype(np.float64)
            return found

        def curved(x: Array) -> Array:
            narrow = x.astype(np.float32)
            found = list(each(lambda k: moved(k, narrow), some))
            both = sum(own for _, own in found)
            regained = (inner @ both / share).astype(np.float32)  # what the second layer makes up for by itself
            gaps = [(k, more, point.inputs[k]) for k, (more, _) in zip(some, found, strict=True)]
            pulled = each(lambda one: returned(one[0], one[1] - np.matmul(one[2], regained)), gaps)
            result: Array = np.asarray(sum(pulled)) / share + damping * (grams @ x @ curvature)
            return result

        def missing(k: int) -> Array:
            return returned(k, self._gap(point.inputs[k], self.cases[k], point.second))

        whole = np.asarray(sum(each(missing, every)))
        return solved_by_directions(curved, whole, preconditioned, self.options.directions)

    def _curvature(self, point: _Point, weight: Array) -> Array:
        """What an output of the first layer is worth to the second, for each group of the first:
        ``[groups, outputs, outputs]``."""
        groups, outputs, _ = self.second.shape
        spread = weight.reshape(groups, self.window, self.channels, outputs).astype(np.float64)
        blocks = np.einsum("gkco,gkdo->gcd", spread, spread)
        whole = np.zeros((self.width, self.width))
        for group, block in enumerate(blocks):
            own = self.order[group * self.channels : (group + 1) * self.channels]
            whole[np.ix_(own, own)] = block
        count = sum(len(each) for each in point.slopes)
        steep = np.sqrt(sum(np.square(each, dtype=np.float64).sum(axis=0) for each in point.slopes) / count)
        whole *= steep[:, None] * steep[None, :] * sum(len(case.places) for case in self.cases) / count
        whole += _FLOOR * np.diag(whole).mean() * np.eye(self.width) + 1e-12 * np.eye(self.width)
        each = self.width // self.first.shape[0]
        return np.stack([whole[k : k + each, k : k + each] for k in range(0, self.width, each)])


def solved_by_directions(
    curved: Callable[[Array], Array], right: Array, preconditioned: Callable[[Array], Array], count: int
) -> Array:
    """The ``x`` of ``curved(x) = right`` by so many directions of preconditioned conjugate gradients.

    >>> matrix = np.array([[2.0, 1.0], [1.0, 3.0]])
    >>> solved_by_directions(lambda x: matrix @ x, np.array([3.0, 4.0]), lambda x: x, 2).round(6).tolist()
    [1.0, 1.0]
    """
    solution, residual = np.zeros(right.shape), right
    direction = fine = preconditioned(residual)
    for _ in range(count):
        pushed = curved(direction)
        along = float((direction * pushed).sum())
        if not along > 0:
            break
        power = float((residual * fine).sum())
        solution += power / along * direction
        residual = residual - power / along * pushed
        fine = preconditioned(residual)
        direction = fine + float((residual * fine).sum()) / power * direction
    return solution
