"""What the processor can do: its features as the operating system reports them, and the levels that code is built for.

The levels are those of the x86-64 psABI, which compilers know as `x86-64`, `x86-64-v3` and so on. A level is there only
with all of its features, because a compiler may use any of them. LLVM's guess of the host is never asked: in virtual
machines it is often wrong.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from pathlib import Path

from graphprune.errors import GraphPruneError, did_you_mean

MASK = "GRAPHPRUNE_CPU"
"""The environment variable that names a level beyond which features are not used, for tests and comparisons."""

_CPUINFO = Path("/proc/cpuinfo")
_X86_64 = frozenset({"x86_64", "amd64"})

_ARCH_PRCTL, _ASK_FOR_STATE, _TILES = 158, 0x1023, 18
"""The system call with which a process on Linux asks for the registers of AMX: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
(the kernel's Documentation/arch/x86/xstate.rst)."""

_V2 = ("cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3")
_V3 = (*_V2, "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
_EACH = {"v1": (), "v2": _V2, "v3": _V3, "v4": _V4}
LEVELS: dict[str, tuple[str, ...]] = {name: tuple(sorted(each)) for name, each in _EACH.items()}
"""Level to the features that it needs, by their names in /proc/cpuinfo; every x86-64 processor has v1."""


@dataclass(frozen=True)
class Cpu:
    """A processor. machine: its architecture, `x86_64` or another; name: as its maker calls it, empty where unknown;
    features: None where the operating system does not tell, and then nothing beyond v1 is taken for granted;
    masked: the level that GRAPHPRUNE_CPU limits it to, or empty; refused: what it has and this process may not use."""

    machine: str
    name: str
    features: frozenset[str] | None
    masked: str = ""
    refused: str = ""

    def missing(self, needed: Set[str]) -> tuple[str, ...]:
        """Those of the features that it has not, sorted."""
        return tuple(sorted(needed - (self.features or frozenset())))

    @property
    def level(self) -> str:
        """The highest level that it has all of; empty where it is no x86-64 processor."""
        if self.machine != "x86_64":
            return ""
        return [name for name, needed in LEVELS.items() if not self.missing(set(needed))][-1]

    def __str__(self) -> str:
        if self.machine != "x86_64":
            return f"{self.name or 'a processor'} ({self.machine})"
        known = "" if self.features is not None else ", its features are not known on this system"
        limit = f", limited to {self.masked} by {MASK}" if self.masked else ""
        refused = f", the operating system refuses {self.refused}" if self.refused else ""
        return f"{self.name or 'a processor'} (x86-64-{self.level}{known}{limit}{refused})"


def cpu() -> Cpu:
    """The processor of this machine. Raises GraphPruneError GP106 where GRAPHPRUNE_CPU names no level."""
    return masked(_found(), os.environ.get(MASK, ""))


def masked(processor: Cpu, level: str) -> Cpu:
    """The processor as if it had nothing beyond a level; it never gains a feature. An empty level changes nothing."""
    if not level:
        return processor
    if level not in LEVELS:
        what = f"{level!r} is not a level of x86-64"
        raise GraphPruneError("GP106", what, f"environment variable {MASK}", did_you_mean(level, LEVELS))
    left = None if processor.features is None else processor.features & frozenset(LEVELS[level])
    return replace(processor, features=left, masked=level)


@functools.cache
def _found() -> Cpu:
    machine = platform.machine().lower()
    machine = "x86_64" if machine in _X86_64 else machine or "unknown"
    try:
        told = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Cpu(machine, "", None)
    return permitted(parsed(told, machine), ask)


def permitted(processor: Cpu, asked: Callable[[], bool]) -> Cpu:
    """The processor with AMX where the operating system lets this process use it, for which it has to be asked once; a
    process that was not given it ends with an illegal instruction."""
    features = processor.features or frozenset()
    tiles = {name for name in features if name.startswith("amx_")}
    if not tiles or asked():
        return processor
    return replace(processor, features=features - tiles, refused="AMX")


def ask() -> bool:
    """Asks Linux for the registers of AMX, for all threads of this process and those that it starts."""
    if sys.platform != "linux" or platform.machine().lower() not in _X86_64:
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return bool(call(*map(ctypes.c_long, (_ARCH_PRCTL, _ASK_FOR_STATE, _TILES))) == 0)


def parsed(told: str, machine: str = "x86_64") -> Cpu:
    """What /proc/cpuinfo says of the processors. A feature counts where every one of them has it.

    >>> parsed("model name : Example\\nflags : sse2 avx\\nmodel name : Example\\nflags : sse2").features
    frozenset({'sse2'})
    """
    name, common = "", None
    for line in told.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = name or value.strip()
        elif key.strip() == "flags":
            features = frozenset(value.split())
            common = features if common is None else common & features
    return Cpu(machine, name, common)
