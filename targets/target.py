"""What a target is: a kind of machine, the processors of that kind that code is made for, and a compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from graphprune.runtime.cpu import Cpu

if TYPE_CHECKING:
    from graphprune.runtime.artifact import Network


@dataclass(frozen=True)
class Processor:
    """A kind of processor that one variant of an artifact is compiled for.

    name:      of the variant, such as `v4`
    features:  all that the compiler may use, by the names in /proc/cpuinfo
    mcpu:      the same as LLVM calls it; LLVM is never asked what the host is
    lanes:     float32 numbers in a vector
    registers: vector registers
    about:     a few words for lists
    rounding:  the shortest type that values are rounded to on the way
    attributes: features beyond those of `mcpu`, as LLVM writes them
    integers:  whether only quantised networks gain by it
    proven:    whether its code has been run on such a processor; where it has not, it is built by default only where it
               can be run and compared
    """

    name: str
    features: tuple[str, ...]
    mcpu: str
    lanes: int
    registers: int
    about: str
    rounding: str = "float32"
    attributes: tuple[str, ...] = ()
    integers: bool = False
    proven: bool = True

    def runs_on(self, cpu: Cpu) -> bool:
        """Whether a processor has everything that the compiler may use."""
        return not cpu.missing(set(self.features))


class Target(Protocol):
    """A row of `graphprune.targets.TARGETS`; the registered object is called without arguments."""

    name: ClassVar[str]
    machine: ClassVar[str]
    """The architecture, as `platform.machine()` calls it in lower case."""
    processors: ClassVar[tuple[Processor, ...]]
    """The best first."""

    def compile(
        self,
        model: Path,
        *,
        shapes: Mapping[str, tuple[int, ...]],
        processors: Sequence[Processor],
        threads: int,
        tune: float,
    ) -> Network:
        """Compile an ONNX file.

        shapes:     of every input, all of them static
        processors: one variant for each, in this order
        threads:    that the work is divided for
        tune:       seconds that kernels may be measured for; 0: the same file gives the same bytes
        Raises GraphPruneError for what it cannot compile.
        """
