"""Products of tiles against numpy, with the instructions of AMX emulated where this machine has none; what is compiled
for processors that have them, and what the emulation refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tvm")

import tvm

from graphprune.targets.kernels.contract import Operand
from graphprune.targets.kernels.functions import Apply, Expression, Leaf
from graphprune.targets.kernels.pairs import packed
from graphprune.targets.kernels.quads import packed as fours
from graphprune.targets.kernels.terms import TERMS
from graphprune.targets.kernels.tiles import Tiles
from graphprune.targets.kernels.tir import Machine, function
from graphprune.targets.target import Processor
from graphprune.targets.x86.processors import PROCESSORS
from tests.targets.kernels import amx, harness
from tests.targets.kernels.test_contract import EPILOGUES, finished
from tests.targets.kernels.test_pairs import nearest
from tests.targets.kernels.test_quads import QUANTISE, activations
from tests.targets.kernels.test_quads import weights as eight

ROOT = Path(__file__).parents[3]
SHAPES = [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
MACHINES = amx.MACHINES

pytestmark = pytest.mark.skipif(not MACHINES, reason="this processor has no AVX-512")


def blocks(words: np.ndarray, tall: int, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words [output][input] as [entry][output][input of the block], the first input of each entry, and where the
    entries of each group of 16 or 32 outputs begin. Blocks of zeros are not there."""
    outputs, inputs = words.shape
    rows = 16 * tall
    groups = -(-outputs // rows)
    whole = np.zeros((groups * rows, inputs), np.int32)
    whole[:outputs] = words
    cut = whole.reshape(groups, rows, inputs // depth, depth).transpose(0, 2, 1, 3)
    there = (cut != 0).any((2, 3))
    values = cut[there] if there.any() else np.zeros(rows * depth, np.int32)
    offsets = np.nonzero(there)[1] * depth if there.any() else np.zeros(1)
    return values.ravel(), offsets.astype(np.int32), np.concatenate([[0], there.sum(1).cumsum()]).astype(np.int32)


def kept(generator: np.random.Generator, outputs: int, blocks: int, tall: int, density: float) -> np.ndarray:
    """Which blocks of weights are there, for each output and block; some groups have none."""
    groups = -(-outputs // (16 * tall))
    there = generator.random((groups, blocks)) < density
    return np.repeat(there, 16 * tall, 0)[:outputs]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    shape=st.sampled_from(SHAPES),
    outer=st.integers(1, 2),
    outputs=st.sampled_from([1, 7, 16, 33, 64]),
    depth=st.sampled_from([4, 9, 16]),
    count=st.sampled_from([1, 3]),
    length=st.sampled_from([1, 7, 16, 17, 49, 64, 100]),
    density=st.sampled_from([0.0, 0.4, 1.0]),
    chunks=st.sampled_from([1, 2]),
    block=st.sampled_from([1, 3]),
    bias=st.booleans(),
    epilogue=st.sampled_from(sorted(EPILOGUES)),
    border=st.sampled_from(["scratch", "guarded", "masked"]),
    odd=st.booleans(),
    seed=st.integers(0, 99),
)
def test_bfloat16(
    machine: Machine, shape: tuple[int, int], outer: int, outputs: int, depth: int, count: int, length: int,
    density: float, chunks: int, block: int, bias: bool, epilogue: str, border: str, odd: bool, seed: int,
) -> None:  # fmt: skip
    """Products of two bfloat16 numbers are exact in float32, so that only sums round."""
    generator = np.random.default_rng(seed)
    (tall, wide), inputs, pitch = shape, 2 * depth * count, harness.pitch(length)
    weight = generator.standard_normal((outputs, inputs)).astype(np.float32)
    weight *= np.repeat(kept(generator, outputs, count, tall, density), 2 * depth, 1)
    x = generator.standard_normal((outer, inputs, length)).astype(np.float32)
    if odd:
        x[0, 0, 0] = generator.choice([np.nan, np.inf])
    words = np.full((outer, inputs // 2, pitch), -1, np.int32)  # behind the run: not a number
    words[..., :length] = packed(np.ascontiguousarray(x.transpose(0, 2, 1))).transpose(0, 2, 1)
    values, offsets, starts = blocks(packed(weight), tall, depth)
    arrays = [words, values, offsets * pitch, starts]
    wanted, size = exact(nearest(weight), nearest(x).astype(np.float64), tall, 2 * depth)
    if bias:
        arrays.append(generator.standard_normal(outputs).astype(np.float32))
        wanted, size = wanted + arrays[-1][:, None], size + np.abs(arrays[-1])[:, None]
    mask = np.arange(length) % 9 != 8
    if border == "masked":
        arrays.append(np.concatenate([mask, np.zeros(pitch - length)]).astype(np.float32))
    operands: tuple[Operand, ...] = ()
    if epilogue == "residual":
        arrays.append(generator.standard_normal((outer, outputs, pitch)).astype(np.float32))
        operands = (Operand(pitch, 1, (outputs * pitch,)),)
        wanted, size = wanted + arrays[-1][..., :length], size + np.abs(arrays[-1][..., :length])
    kernel = Tiles(
        outputs, length, pitch, 16 * tall, wide, ((outer, inputs // 2 * pitch, outputs * pitch),), bias,
        border == "masked", border == "guarded", EPILOGUES[epilogue], operands, block,
        min(chunks, len(starts) - 1), "bfloat16", depth=depth, down=pitch,
    )  # fmt: skip
    found = amx.run(kernel, machine, *arrays, np.full((outer, outputs, pitch), 77.0, np.float32))
    if border != "scratch":
        assert (found[..., length:] == 77.0).all()
    found = found[..., :length]
    if border == "masked":
        assert (found[..., ~mask] == 77.0).all()
        found, wanted, size = found[..., mask], wanted[..., mask], size[..., mask]
    finished(epilogue, found, wanted, (inputs + 4) * 2.0**-23 * size)


def exact(weight: np.ndarray, x: np.ndarray, tall: int, across: int) -> tuple[np.ndarray, np.ndarray]:
    """The product of [output, input] and [outer, input, place], and the sum of what is added: a block that is not there
    multiplies nothing, a zero in one that is there does."""
    total, size = (np.zeros((len(x), len(weight), x.shape[2])) for _ in range(2))
    clean = np.abs(np.where(np.isfinite(x), x, 0))
    for top in range(0, len(weight), 16 * tall):
        for first in range(0, weight.shape[1], across):
            rows, columns = slice(top, top + 16 * tall), slice(first, first + across)
            if weight[rows, columns].any():
                with np.errstate(all="ignore"):
                    total[:, rows] += np.einsum("oi,bip->bop", weight[rows, columns], x[:, columns])
                size[:, rows] += np.einsum("oi,bip->bop", np.abs(weight[rows, columns]), clean[:, columns])
    return total, size


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    machine=st.sampled_from(MACHINES),
    shape=st.sampled_from(SHAPES),
    outputs=st.sampled_from([1, 7, 16, 33, 64]),
    depth=st.sampled_from([4, 9, 16]),
    count=st.sampled_from([1, 3]),
    length=st.sampled_from([1, 7, 16, 49, 100]),
    density=st.sampled_from([0.0, 0.4, 1.0]),
    result=st.sampled_from(["int32", "float32", "uint8", "residual"]),
    border=st.sampled_from(["guarded", "masked"]),
    seed=st.integers(0, 99),
)
def test_int8(
    machine: Machine, shape: tuple[int, int], outputs: int, depth: int, count: int, length: int, density: float,
    result: str, border: str, seed: int,
) -> None:  # fmt: skip
    """Every sum is exact."""
    generator = np.random.default_rng(seed)
    (tall, wide), inputs, pitch = shape, 4 * depth * count, harness.pitch(length)
    there = np.repeat(kept(generator, outputs, count, tall, density), 4 * depth, 1)
    weight = eight(generator, outputs, inputs) * there.astype(np.int8)
    x = activations(generator, inputs, length)
    words = np.full((inputs // 4, pitch), -1, np.int32)
    words[:, :length] = np.ascontiguousarray(x.T).view("<i4").T
    bias = generator.integers(-(1 << 20), 1 << 20, outputs).astype(np.int32)
    total = weight.astype(np.int64) @ x.astype(np.int64) + bias[:, None]
    values, offsets, starts = blocks(fours(weight), tall, depth)
    arrays = [words, values, offsets * pitch, starts, bias]
    epilogue: Expression = Leaf(0)
    dtype, operands, wanted = result, (), total
    if result != "int32":
        arrays.append((generator.uniform(0.5, 2, outputs) / (100 * inputs)).astype(np.float32))
        wanted = total.astype(np.float32) * arrays[-1][:, None]
    mask = np.arange(pitch) % 9 != 8
    if border == "masked":
        arrays.append((mask & (np.arange(pitch) < length)).astype(np.float32))
    if result == "residual":
        arrays.append(activations(generator, outputs, pitch))
        epilogue, dtype = Apply("add", (Leaf(0), Apply("cast:float32", (Leaf(1),)))), "float32"
        operands = (Operand(pitch, 1, (), "uint8"),)
        wanted = wanted + arrays[-1][:, :length].astype(np.float32)
    elif result == "uint8":
        epilogue, wanted = QUANTISE, np.clip(np.rint(wanted) + 3, 0, 255)
    kernel = Tiles(
        outputs, length, pitch, 16 * tall, wide, masked=border == "masked", guarded=border == "guarded",
        epilogue=epilogue, operands=operands, numbers="int8", scaled=result != "int32", result=dtype, depth=depth,
        down=pitch,
    )  # fmt: skip
    found = amx.run(kernel, machine, *arrays, np.full((outputs, pitch), 77, dtype))
    written = mask[:length] if border == "masked" else np.ones(length, bool)
    rounding = 1e-6 * np.abs(total).max() if result == "residual" else 0.0  # multiplied and added as one
    assert np.abs(found[:, :length][:, written] - wanted[:, written].astype(dtype)).max(initial=0) <= rounding
    assert (found[:, length:] == 77).all() and (found[:, :length][:, ~written] == 77).all()


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_sums_of_extremes_do_not_saturate(machine: Machine) -> None:
    x = np.full((4, 16), -1, np.int32)  # bytes of 255
    for extreme, word in ((127, 0x7F7F7F7F), (-128, -0x7F7F7F80)):
        arrays = [x, np.full(64, word, np.int32), np.zeros(1, np.int32), np.array([0, 1], np.int32)]
        kernel = Tiles(1, 16, 16, 16, 1, bias=False, numbers="int8", result="int32", depth=4, down=16)
        assert (amx.run(kernel, machine, *arrays, np.zeros((1, 16), np.int32)) == 16 * 255 * extreme).all()


@pytest.mark.parametrize("number", [1, 2, 3], ids=["weights", "offsets", "starts"])
def test_another_table_is_another_product(number: int) -> None:
    """The control of all that compares here."""
    generator = np.random.default_rng(0)
    weight = generator.integers(-128, 128, (32, 128)).astype(np.int8)
    words = generator.integers(0, 1 << 30, (32, 16)).astype(np.int32)
    values, offsets, starts = blocks(fours(weight), 2, 16)
    kernel = Tiles(32, 16, 16, 32, 1, bias=False, numbers="int8", result="int32", depth=16, down=16)
    arrays = [words, values, offsets * 16, starts, np.zeros((32, 16), np.int32)]
    wanted = amx.run(kernel, MACHINES[0], *arrays)
    x = words.view(np.uint8).reshape(32, 16, 4).transpose(0, 2, 1).reshape(128, 16)
    assert np.array_equal(wanted, weight.astype(np.int64) @ x)
    arrays[number] = arrays[number][::-1].copy() if number < 3 else np.array([0, 1], np.int32)
    assert not np.array_equal(amx.run(kernel, MACHINES[0], *arrays), wanted)


def test_what_has_no_room_in_eight_tiles_is_refused() -> None:
    for rows, vectors, depth in ((32, 3, 16), (16, 4, 16), (24, 1, 16), (16, 1, 17)):
        with pytest.raises(ValueError, match="no tiles"):
            Tiles(32, 16, 16, rows, vectors, numbers="int8", depth=depth, down=16)


BROKEN = {
    "nothing is configured": ("call void @emulated_ldtilecfg(", "; "),
    "configured for less": ("i8 16, i8 4,", "i8 16, i8 3,"),
    "of another palette": ("[i8 1,", "[i8 2,"),
}


def broken(name: str) -> None:
    """A product of which the processor refuses a step. Ends this process."""
    before, after = BROKEN[name]
    made = amx.code
    amx.code = lambda *what: made(*what).replace(before, after)
    kernel = Tiles(16, 16, 16, 16, 1, bias=False, numbers="int8", result="int32", depth=4, down=16)
    table = [np.ones(64, np.int32), np.zeros(1, np.int32), np.array([0, 1], np.int32)]
    amx.run(kernel, amx.MACHINES[0], np.ones((4, 16), np.int32), *table, np.zeros((16, 16), np.int32))


@pytest.mark.skipif(sys.platform != "linux", reason="signals as Linux has them")
@pytest.mark.parametrize("name", [*BROKEN, ""])
def test_what_a_processor_refuses_ends_the_process(name: str) -> None:
    text = f"from tests.targets.kernels.test_tiles import *\nBROKEN[''] = ('', '')\nbroken({name!r})"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == (-signal.SIGILL if name else 0), done.stderr[-500:]


@pytest.mark.parametrize(
    "processor", [each for each in PROCESSORS if "amx_tile" in each.features], ids=lambda p: p.name
)
def test_what_is_compiled_for_such_processors(processor: Processor) -> None:
    """The instructions, and their operands: sums, weights, x; in the notation of AT&T the last comes first."""
    target = {"kind": "llvm", "mcpu": processor.mcpu, "mattr": list(processor.attributes)}
    for numbers in [*["bfloat16"] * (processor.rounding == "bfloat16"), "int8"]:
        kernel = Tiles(32, 32, 32, 32, 2, bias=False, numbers=numbers, scaled=numbers == "int8", depth=16, down=32)
        made = function(kernel, Machine(16, 32, 1, tiles=True)).with_attr("global_symbol", "kernel")
        with tvm.transform.PassContext(config={"tirx.disable_storage_rewrite": True}):
            library = tvm.compile(tvm.IRModule({"kernel": made}), target=tvm.target.Target(target))
        lines = library.mod.inspect_source("asm").splitlines()
        found = [line.replace("\t", " ").strip() for line in lines if "tmm" in line or "ldtilecfg" in line]
        kinds = list(dict.fromkeys(line.split()[0] for line in found))
        assert kinds == ["ldtilecfg", "tilezero", "tileloadd", TERMS[numbers].tiles, "tilestored"]
        steps = [line for line in found if line.startswith(("tileloadd", "td"))]
        dots = [f"{kinds[3]} %tmm{x}, %tmm{w}, %tmm{2 * (w - 4) + x - 6}" for w in (4, 5) for x in (6, 7)]
        for first in range(0, len(steps), 8):  # all that is multiplied is loaded before
            loads = [line.rpartition(" ")[2] for line in steps[first : first + 4]]
            assert loads == ["%tmm4", "%tmm5", "%tmm6", "%tmm7"] and steps[first + 4 : first + 8] == dots
        assert sum("tilerelease" in line for line in lines) == 1
