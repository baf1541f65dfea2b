"""Weights that stay take over what the removed ones did: each layer is fitted to what it computed in the dense network.

Layers are taken in running order, and each is fitted on the activations of the network as it is by then, so that it
also repairs what the layers before it still get wrong; in front of a residual connection the target is what the *sum*
was, which repairs the other branch, too. In closed form, with the Gram matrix of the inputs: the reconstruction of
ThiNet (Luo et al., ICCV 2017) and of channel pruning (He et al., ICCV 2017), in sequence as in OBC (Frantar & Alistarh,
NeurIPS 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphprune.calibrate import draw, product
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Staged
from graphprune.errors import GraphPruneError
from graphprune.layers import Layer
from graphprune.program import Array, Node, Stored
from graphprune.recover.grid import Grid
from graphprune.recover.pair import HELD_OUT, Follow, Outcome, Pair, Recovered, held_cases
from graphprune.workers import Each, in_turn

Late = tuple[Node, Node]
"""The sums that a branch goes into, in the dense and in the pruned network."""

# Differences of activations below this share of their size are rounding: the layer sees what it saw before.
_ROUNDING = 1e-5
# Samples of the first case that tell whether anything changed, and how a layer computes.
_FEW = 2048


@dataclass(frozen=True)
class LeastSquares:
    """``min |X W' + c - T|^2 + ridge |W' - W|^2`` for every layer whose inputs changed, T from the dense network.

    ridge: as a share of the mean of the diagonal of ``X'X``; pulls towards the weights that were cut. This, ten and a
           hundred times as much, whichever is best on held-out data
    held_out: the share of cases that an update is judged on. It is computed without them, and where it is better, once
           more from all
    """

    name: ClassVar[str] = "least_squares"

    ridge: float = 1e-4
    held_out: float = HELD_OUT

    def run(self, pair: Pair) -> Recovered:
        """Fit all layers. Raises GraphPruneError GP402 where a model cannot be run, GP701 where there is no data, and
        GP703 for activations that are not finite."""
        with pair.workers() as each:
            walk = Walk(pair, self.ridge, self.held_out, each)
            outcomes = [outcome for place in range(len(pair.layers)) if (outcome := walk.layer(place)) is not None]
        return Recovered(walk.arrays, tuple(outcomes))


@dataclass(eq=False)
class Sums:
    """``X'X``, ``X'T`` and ``T'T`` with a column of ones behind the inputs of X."""

    gram: Array
    cross: Array
    square: float = 0.0
    count: int = 0

    @classmethod
    def empty(cls, groups: int, inputs: int, outputs: int) -> Sums:
        return cls(np.zeros((groups, inputs + 1, inputs + 1)), np.zeros((groups, inputs + 1, outputs)))

    @classmethod
    def of(cls, rows: Array, target: Array) -> Sums:
        """Of samples ``[samples, groups, inputs]`` and ``[samples, groups, outputs]``."""
        _, groups, last = rows.shape
        found = cls.empty(groups, last, target.shape[2])
        total = rows.sum(axis=0, dtype=np.float64)
        found.gram[:, :last, :last] = product(rows, rows)
        found.gram[:, last, :last] = found.gram[:, :last, last] = total
        found.gram[:, last, last] = found.count = len(rows)
        found.cross[:, :last] = product(rows, target)
        found.cross[:, last] = target.sum(axis=0, dtype=np.float64)
        found.square = float(np.vdot(target, target))
        return found

    def take(self, other: Sums) -> None:
        """Add others to these."""
        self.gram += other.gram
        self.cross += other.cross
        self.square += other.square
        self.count += other.count

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.gram + other.gram, self.cross + other.cross, self.square + other.square, self.count + other.count
        )

    def error(self, solution: Array) -> float:
        """The squared error of ``[groups, inputs + 1, outputs]`` as a share of the target's second moment."""
        fit = np.einsum("gro,grs,gso->", solution, self.gram, solution, optimize=True)
        both = np.einsum("gro,gro->", solution, self.cross)
        return float(max(0.0, fit - 2 * both + self.square) / max(self.square, 1e-30))


class Walk:
    """Both networks, stopped before the same layer, for all cases; the pruned one with what was fitted so far.

    ridge, held_out: see :class:`LeastSquares`
    each: computes what is wanted of every case, and of every ridge that is tried
    """

    def __init__(self, pair: Pair, ridge: float, held_out: float, each: Each = in_turn):
        self.pair, self.ridge, self.each = pair, ridge, each
        cases = list(pair.calibration.cases)
        if not cases:
            raise GraphPruneError("GP701", "there is not one batch of calibration data")
        self.late = {small: late for _, small in pair.layers if (late := self._late(small)) is not None}
        self.dense, self.small = _Stops(pair, 0, self.late), _Stops(pair, 1, self.late)
        self.states = [(self.dense.staged.begin(case), self.small.staged.begin(case)) for case in cases]
        # With a single case there is nothing to hold out but rows of it.
        self.held = held_cases(len(cases), held_out)
        self.arrays: dict[str, Array] = {}
        # Of the layer at which the networks stand: whether it sees anything else than in the dense one, which samples
        # of the first case were looked at, and what the dense one adds to its products (None where that is unknown).
        self.changed = False
        self.few = np.zeros(0, np.int64)
        self.added: Array | None = None

    def _late(self, small: Layer) -> Late | None:
        """Where the other branch of a residual connection can be read, if it is computed after the layer."""
        follow, pair = self.pair.follow(small), self.pair
        if follow.beside is None or follow.sum is None or follow.beside.name not in pair.twins:
            return None
        order = {node: place for place, node in enumerate(pair.small.program.main.nodes)}
        made = follow.beside.producer
        if made not in order or order[made] < order[small.node]:
            return None
        twin = pair.twins.get(follow.sum.outputs[0].name)
        return None if twin is None or twin.producer is None else (twin.producer, follow.sum)

    def layer(self, place: int) -> Outcome | None:
        """Go on to a layer and fit it; None where nothing changed for it."""
        self.arrive(place)
        return self.fit(place)

    def arrive(self, place: int) -> None:
        """Go on to a layer; in the dense network behind it, where its results can be read."""
        dense, small = self.pair.layers[place]

        def reached(states: tuple[Any, Any]) -> None:
            self.dense.reach(states[0], dense.node)
            self.small.reach(states[1], small.node)

        list(self.each(reached, self.states))
        inputs, differs = self._first(place, dense, small)
        self.changed = differs or self.rewritten(dense, small)
        self.added = None
        following = self.dense.following.get(dense.node)
        if self.changed and following is not None:
            ahead = self.dense.staged.fork(self.states[0][0])
            self.dense.reach(ahead, following)
            self.added = self._constant(dense, inputs, self.dense.staged.read(ahead, dense.result))
        if self.added is not None and following is not None:
            list(self.each(lambda states: self.dense.reach(states[0], following), self.states))

    def rewritten(self, dense: Layer, small: Layer) -> bool:
        """Whether the layer computes something else for the same inputs; without some outputs the others are what they
        were."""
        return dense.shape[2] != small.shape[2]

    def _first(self, place: int, dense: Layer, small: Layer) -> tuple[Array, bool]:
        """Some inputs of the dense layer in the first case, and whether those of the pruned one are others."""
        before, after = self.states[0]
        rows = small.rows(self.small.staged.read(after, small.activation))
        chosen = draw(len(rows), _FEW, (self.pair.seed, place))
        chosen = np.arange(len(rows)) if chosen is None else chosen
        inputs = dense.rows(self.dense.staged.read(before, dense.activation)).take(chosen)
        self.few = chosen
        return inputs, _differs(rows.take(chosen), inputs[:, self.pair.kept(dense, dense.groups)])

    def _constant(self, dense: Layer, inputs: Array, result: Array) -> Array | None:
        """What the dense layer adds to its sum of products, a number for each output; None where it is not that."""
        found = dense.results(result).take(self.few) - self._products(dense, inputs)
        constant: Array = found.mean(axis=0)
        scale = np.abs(found).max() + np.abs(result).max()
        return constant if np.abs(found - constant).max() <= 1e-4 * scale else None

    def _products(self, dense: Layer, inputs: Array) -> Array:
        weight = dense.matrices(np.asarray(self.pair.dense.program.dialect.constant(dense.weight))).astype(inputs.dtype)
        found: Array = np.matmul(inputs.transpose(1, 0, 2), weight.transpose(0, 2, 1)).transpose(1, 0, 2)
        return found

    def fit(self, place: int, start: Array | None = None) -> Outcome | None:
        """Fit the layer at which the networks stand; None where nothing changed for it, or it is best as it is given.

        start: what it has already, not written yet, ``[groups, inputs + 1, outputs]``: the last row is added to results
        """
        small = self.pair.layers[place][1]
        if self.pair.home(small) is None:
            return Outcome(small.name, np.nan, np.nan, False, "GP705 it has no weight of its own that could be written")
        follow = self.pair.follow(small)
        if not self.changed:
            return None
        fit, judge = self._sums(place, small)
        old = self.weights(small) if start is None else start

        def judged(ridge: float) -> float:
            return judge.error(self.storable(small, follow, self.minimum(small, fit, old, ridge)))

        tried = ridges(self.ridge)
        errors = dict(zip(tried, self.each(judged, tried), strict=True))
        ridge = min(errors, key=lambda each: errors[each])
        before, after = judge.error(old), errors[ridge]
        better = after < before
        new = self.storable(small, follow, self.minimum(small, fit + judge, old, ridge)) if better else old
        if better or start is not None:
            self.write(small, follow, new)
        if not better and start is not None:
            return None  # it has what it was given
        if not better:
            return Outcome(small.name, before, after, False, "GP705 its error on held-out data would not be lower")
        return Outcome(small.name, before, after, True)

    def minimum(self, small: Layer, sums: Sums, old: Array, ridge: float) -> Array:
        """The best weights of a layer, and what is added: ``[groups, inputs + 1, outputs]``."""
        return solved(sums, old, ridge, free(self.pair.follow(small)))

    def storable(self, small: Layer, follow: Follow, new: Array) -> Array:
        """Weights and what is added as they will be once they are stored: rounded where that is as codes."""
        home, groups = self.pair.home(small), len(new)
        if not isinstance(home, Grid) and follow.grid is None:
            return new
        found = new.copy()
        if isinstance(home, Grid):
            held = home.floats(home.codes(small.weights(new[:, :-1].transpose(0, 2, 1))))
            found[:, :-1] = small.matrices(held).transpose(0, 2, 1)
        if follow.grid is not None and follow.shift is None:
            old = self.numbers(follow.grid)
            held = follow.grid.floats(follow.grid.codes(old + new[:, -1].reshape(old.shape))) - old
            found[:, -1] = held.reshape(groups, -1)
        return found

    def weights(self, small: Layer) -> Array:
        """The weights as they are by now, with nothing added: ``[groups, inputs + 1, outputs]``."""
        home = self.pair.home(small)
        assert home is not None
        matrices = small.matrices(self.numbers(home)).astype(np.float64)
        zeros = np.zeros((*matrices.shape[:2], 1))
        return np.concatenate([matrices, zeros], axis=2).transpose(0, 2, 1)

    def numbers(self, home: Stored | Grid) -> Array:
        """A stored tensor of the pruned network as it is by now; of codes what they stand for."""
        if isinstance(home, Grid):
            return home.floats(self.arrays.get(home.stored.name, home.stored.read()))
        return self.arrays.get(home.name, home.read())

    def _sums(self, place: int, small: Layer) -> tuple[Sums, Sums]:
        """What the fit is computed from, and what it is judged on."""
        groups, outputs, inputs = small.shape

        def summed(number: int) -> list[Sums]:
            """Of a case; of a lone one, of its two halves."""
            rows = small.rows(self.small.staged.read(self.states[number][1], small.activation))
            chosen = draw(len(rows), self.pair.calibration.rows, (self.pair.seed, number, place))
            taken, target = rows.take(chosen), self.target(place, number, chosen)
            if not np.isfinite(taken.sum() + target.sum()):
                raise GraphPruneError("GP703", f"batch {number + 1} makes activations that are not finite", small.name)
            halves = [(taken, target)] if self.held else [(taken[k::2], target[k::2]) for k in range(2)]
            return [Sums.of(*half) for half in halves]

        fit, judge = Sums.empty(groups, inputs, outputs), Sums.empty(groups, inputs, outputs)
        for number, found in enumerate(self.each(summed, range(len(self.states)))):
            if self.held:
                (judge if number >= len(self.states) - self.held else fit).take(found[0])
            else:
                fit.take(found[0])
                judge.take(found[1])
        return fit, judge

    def target(self, place: int, number: int, chosen: Array | None) -> Array:
        """What the layer at which the networks stand should compute in a case, nothing added:
        ``[samples, groups, outputs]``."""
        dense, small = self.pair.layers[place]
        before, after = self.states[number]
        if self.added is not None:
            found = dense.results(self.dense.staged.read(before, dense.result)).take(chosen) - self.added
        else:
            found = self._products(dense, dense.rows(self.dense.staged.read(before, dense.activation)).take(chosen))
        kept = found[:, self.pair.kept(dense, dense.groups)][:, :, self.pair.kept(dense, dense.outputs)]
        target: Array = kept + self._correction(dense, small, self.pair.follow(small), before, after, chosen)
        return target.astype(found.dtype, copy=False)

    def _correction(
        self, dense: Layer, small: Layer, follow: Follow, before: Any, after: Any, chosen: Array | None
    ) -> Array | float:
        """What the other branch of a residual connection lacks, as this layer would have to compute it."""
        if follow.beside is None or follow.beside.name not in self.pair.twins:
            return 0.0
        twin = self.pair.twins[follow.beside.name]
        if small in self.late:
            before, after = self.dense.staged.fork(before), self.small.staged.fork(after)
            self.dense.reach(before, self.late[small][0])
            self.small.reach(after, self.late[small][1])
        try:
            is_now, was = self.small.staged.read(after, follow.beside), self.dense.staged.read(before, twin)
            lacking = dense.results(was).take(chosen)
            lacking = lacking[:, self.pair.kept(dense, dense.groups)][:, :, self.pair.kept(dense, dense.outputs)]
            lacking = lacking - small.results(is_now).take(chosen)
        except (GraphPruneError, ValueError, IndexError):
            return 0.0  # it is of another shape that is broadcast
        if follow.gain is None:
            return lacking
        gain = follow.gain.reshape(1, *lacking.shape[1:])
        usable = np.abs(gain) > 1e-3 * np.abs(gain).max()
        corrected: Array = np.where(usable, lacking / np.where(usable, gain, 1.0), 0.0).astype(np.float32)
        return corrected

    def write(self, small: Layer, follow: Follow, new: Array) -> None:
        """Give a layer other weights, and what is added to its results, ``[groups, inputs + 1, outputs]``."""
        home, shift = self.pair.home(small), follow.shift or follow.grid
        assert home is not None
        self._put(home, small.weights(new[:, :-1].transpose(0, 2, 1)))
        added = new[:, -1].reshape(-1)
        if shift is not None:
            old = self.numbers(shift)
            self._put(shift, old + added.reshape(old.shape))
        elif follow.mean is not None:
            old = self.numbers(follow.mean)
            self._put(follow.mean, old - added.reshape(old.shape))

    def _put(self, home: Stored | Grid, array: Array) -> None:
        stored = home.stored if isinstance(home, Grid) else home
        array = home.codes(array) if isinstance(home, Grid) else array.astype(stored.read().dtype)
        self.arrays[stored.name] = array
        self.small.staged.write(stored, array)


class _Stops:
    """One of the two networks, in stages that end before each layer and wherever a late branch is known."""

    def __init__(self, pair: Pair, which: int, late: Mapping[Layer, Late]):
        analysis = (pair.dense, pair.small)[which]
        program = analysis.program
        order = {node: place for place, node in enumerate(program.main.nodes)}
        layers = [each[which].node for each in pair.layers]
        nodes = program.main.nodes
        # Results of the dense network are read before the node that comes next.
        self.following = {node: nodes[order[node] + 1] for node in layers if not which and order[node] + 1 < len(nodes)}
        asked = {*layers, *self.following.values(), *(each[which] for each in late.values())}
        stops = sorted(asked, key=lambda node: order[node])
        self.staged: Staged = tools_of(program.native).staged(program, stops)
        self.places = {node: place for place, node in enumerate(stops)}

    def reach(self, state: Any, node: Node) -> None:
        """Run to the stop before a node."""
        while state.stage <= self.places[node]:
            self.staged.step(state)


def ridges(least: float) -> tuple[float, ...]:
    """Those that are tried: what little data needs is too much for plenty."""
    return least, 10 * least, 100 * least


def free(follow: Follow) -> bool:
    """Whether something can be added to the results of a layer."""
    return follow.shift is not None or follow.mean is not None or follow.grid is not None


def _differs(rows: Array, others: Array) -> bool:
    """Whether two sets of inputs are not the same but for rounding."""
    if rows.shape != others.shape:
        return True
    return bool(np.abs(rows - others).max(initial=0) > _ROUNDING * np.abs(others).max(initial=1e-30))


def solved(sums: Sums, old: Array, ridge: float, free: bool) -> Array:
    """The minimum, ``[groups, inputs + 1, outputs]``; the last row is zero unless it is ``free``."""
    found = np.zeros_like(old)
    size = old.shape[1] - (0 if free else 1)
    for group, (gram, cross) in enumerate(zip(sums.gram, sums.cross, strict=True)):
        weight = ridge * np.diag(gram)[:-1].mean() + 1e-12
        pull = np.full(size, weight)
        if free:
            pull[-1] = 1e-9 * max(1, sums.count)  # what is added is not held back
        left = gram[:size, :size] + np.diag(pull)
        found[group, :size] = np.linalg.solve(left, cross[:size] + pull[:, None] * old[group, :size])
    return found
