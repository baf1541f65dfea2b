"""Operators that only rename places: chains of them over tensors and maps, in front of and behind what computes."""

from __future__ import annotations

import random
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

from graphprune.targets.kernels.tir import Machine
from tests.execution import feeds
from tests.targets.network.harness import MACHINES, built, check, compare
from tests.targets.network.net import Net

STEPS = [
    "Transpose", "Transpose", "Reshape", "Reshape", "Slice", "Slice", "Split", "Concat", "Concat", "Pad", "Expand",
    "Gather", "Squeeze", "Flatten", "Relu", "Relu", "Add", "Softmax", "Conv", "MatMul", "ReduceMean",
]  # fmt: skip
SHAPES = [(6,), (4, 6), (1, 12), (2, 3, 8), (1, 5, 16), (2, 4, 6, 5), (1, 8, 4, 4), (1, 3, 7, 17), (2, 1, 3, 4, 2)]
MOST = 4096  # numbers of a tensor


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    shape=st.sampled_from(SHAPES),
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=7),
    dtype=st.sampled_from(["float32", "float32", "float32", "int64"]),
    seed=st.integers(0, 9999),
)
def test_chains(machine: Machine, shape: tuple[int, ...], steps: list[str], dtype: str, seed: int) -> None:
    chain = Chain(seed, shape, dtype)
    for step in steps:
        chain.append(step)
    model = chain.net.model(*chain.results())
    compare(built(model, machine), [feeds(model, seed=seed) for seed in (0, 1)])


class Chain:
    """A value that is renamed, cut and joined, step by step; steps that do not fit are left out."""

    def __init__(self, seed: int, shape: tuple[int, ...], dtype: str) -> None:
        self.net = Net(seed=seed)
        self.random = random.Random(seed)
        self.dtype = dtype
        self.shape = list(shape)
        self.value = self.net.input(*shape, dtype=dtype)
        self.others: list[str] = []

    def results(self) -> list[str]:
        return list(dict.fromkeys([self.value, *self.others[-2:]]))

    def append(self, step: str) -> None:
        floats = {"Relu", "Softmax", "Conv", "MatMul", "ReduceMean"}
        if self.dtype != "float32" and step in floats:
            return
        getattr(self, step.lower())()

    def add(self) -> None:
        if self.dtype == "float32":
            self.value = self.net.op("Add", self.value, self.net.constant(self.numbers(self.shape[-1:]), self.dtype))

    def numbers(self, shape: list[int]) -> np.ndarray:
        return self.net.generator.integers(-3, 4, shape)

    def relu(self) -> None:
        self.value = self.net.op("Relu", self.value)

    def softmax(self) -> None:
        self.value = self.net.op("Softmax", self.value, axis=self.random.randrange(len(self.shape)))

    def reducemean(self) -> None:
        axis = self.random.randrange(len(self.shape))
        self.value = self.net.op("ReduceMean", self.value, axes=[axis], keepdims=1)
        self.shape[axis] = 1

    def conv(self) -> None:
        if len(self.shape) == 4:
            outputs = self.random.choice([1, 4, 6])
            kernel = self.random.choice([1, 3])
            weight = self.net.weight(outputs, self.shape[1], kernel, kernel)
            self.value = self.net.op("Conv", self.value, weight, pads=[kernel // 2] * 4)
            self.shape[1] = outputs

    def matmul(self) -> None:
        if len(self.shape) > 1:
            outputs = self.random.choice([1, 5, 16])
            self.value = self.net.op("MatMul", self.value, self.net.weight(self.shape[-1], outputs))
            self.shape[-1] = outputs

    def transpose(self) -> None:
        order = self.random.sample(range(len(self.shape)), len(self.shape))
        self.value = self.net.op("Transpose", self.value, perm=order)
        self.shape = [self.shape[axis] for axis in order]

    def reshape(self) -> None:
        left, shape = int(np.prod(self.shape)), []
        for _ in range(self.random.randint(0, 3)):
            shape.append(self.random.choice([size for size in range(1, left + 1) if left % size == 0]))
            left //= shape[-1]
        self.shape = [*shape, left]
        self.value = self.net.op("Reshape", self.value, self.net.numbers(*self.shape))

    def flatten(self) -> None:
        axis = self.random.randint(0, len(self.shape))
        self.value = self.net.op("Flatten", self.value, axis=axis)
        self.shape = [int(np.prod(self.shape[:axis])), int(np.prod(self.shape[axis:]))]

    def squeeze(self) -> None:
        axis = self.random.randrange(len(self.shape))
        if self.shape[axis] == 1 and len(self.shape) > 1:
            self.value = self.net.op("Squeeze", self.value, self.net.numbers(axis))
            del self.shape[axis]
        elif len(self.shape) < 5:
            self.value = self.net.op("Unsqueeze", self.value, self.net.numbers(axis))
            self.shape.insert(axis, 1)

    def slice(self) -> None:
        axes = self.random.sample(range(len(self.shape)), self.random.randint(1, min(2, len(self.shape))))
        starts, ends, steps = [], [], []
        for axis in axes:
            size, step = self.shape[axis], self.random.choice([1, 1, 1, 2, 3, -1, -2])
            start, count = self.random.randrange(size), self.random.randint(1, size)
            if step < 0:
                count = min(count, start // -step + 1)
                end = start + count * step
                end = end if end >= 0 else -(1 << 31)
            else:
                count = min(count, -(-(size - start) // step))
                end = min(start + (count - 1) * step + 1, size) if start + count * step < size else 1 << 40
            starts.append(start - size if self.random.random() < 0.3 and start < size else start)
            ends.append(end)
            steps.append(step)
            self.shape[axis] = count
        given = [self.net.numbers(*part) for part in (starts, ends, axes, steps)]
        self.value = self.net.op("Slice", self.value, *given)

    def split(self) -> None:
        axis = self.random.randrange(len(self.shape))
        size = self.shape[axis]
        if size > 1:
            cuts = sorted(self.random.sample(range(1, size), min(size - 1, self.random.randint(1, 2))))
            parts = [b - a for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
            values = self.net.ops("Split", self.value, self.net.numbers(*parts), outputs=len(parts), axis=axis)
            chosen = self.random.randrange(len(parts))
            self.value, self.shape[axis] = values.pop(chosen), parts[chosen]
            self.others += values

    def concat(self) -> None:
        axis = self.random.randrange(len(self.shape))
        if int(np.prod(self.shape)) > MOST // 3:
            return
        shape = list(self.shape)
        shape[axis] = self.random.choice([1, 2, 5])
        constant = self.net.constant(self.numbers(shape), self.dtype)
        kind = self.random.choice(["itself", "constant", "reversed", "made"])
        if kind == "made" and self.dtype == "float32":
            parts = [
                (self.net.op("Relu", self.value), self.shape[axis]),
                (self.net.op("Abs", self.value), self.shape[axis]),
            ]
        elif kind == "itself":
            parts = [(self.value, self.shape[axis])] * 2
        else:
            parts = [(self.value, self.shape[axis]), (constant, shape[axis])]
        self.random.shuffle(parts)
        self.others.append(self.value)
        self.value = self.net.op("Concat", *(name for name, _ in parts), axis=axis)
        self.shape[axis] = [*accumulate(size for _, size in parts)][-1]

    def pad(self) -> None:
        before, after = ([self.random.choice([0, 0, 0, 1, 2]) for _ in self.shape] for _ in range(2))
        if self.random.random() < 0.3:
            axis = self.random.randrange(len(self.shape))
            before[axis] = -1 if self.shape[axis] > 2 else 0
        sizes = [b + size + a for b, size, a in zip(before, self.shape, after, strict=True)]
        if np.prod(sizes) > MOST:
            return
        given = [self.net.numbers(*before, *after)]
        if self.random.random() < 0.5:
            given.append(self.net.constant(self.numbers([])[()], self.dtype))
        mode = "constant" if self.random.random() < 0.8 or min(self.shape) < 4 or min(before) < 0 else "reflect"
        self.value = self.net.op("Pad", self.value, *(given if mode == "constant" else given[:1]), mode=mode)
        self.shape = sizes

    def expand(self) -> None:
        shape = [self.random.choice([1, 3, 5]) if size == 1 else size for size in self.shape]
        if len(shape) < 5 and self.random.random() < 0.5:
            shape.insert(0, self.random.choice([1, 2]))
        if np.prod(shape) <= MOST:
            self.value = self.net.op("Expand", self.value, self.net.numbers(*shape))
            self.shape = shape

    def gather(self) -> None:
        axis = self.random.randrange(len(self.shape))
        size = self.shape[axis]
        kind = self.random.choice(["one", "run", "every other", "any", "back", "matrix"])
        places = {
            "one": [self.random.randrange(-size, size)],
            "run": [*range(size // 2, size)],
            "every other": [*range(0, size, 2)],
            "back": [*range(size)][::-1],
        }.get(kind, [self.random.randrange(-size, size) for _ in range(4)])
        array = np.array(places, np.int64).reshape(() if kind == "one" else (2, 2) if kind == "matrix" else (-1,))
        if (len(self.shape) == 1 and kind == "one") or np.prod(self.shape) // size * array.size > MOST:
            return
        self.value = self.net.op("Gather", self.value, self.net.constant(array), axis=axis)
        self.shape[axis : axis + 1] = array.shape


@pytest.mark.parametrize("dtype", ["int64", "bool", "int32"])
def test_pads_of_other_types(dtype: str) -> None:
    net = Net()
    fill = net.constant(np.ones((), dtype))
    check(net.model(net.op("Pad", net.input(2, 3, dtype=dtype), net.numbers(1, 0, 0, 2), fill)))
