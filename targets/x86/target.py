"""The target `x86`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from graphprune.errors import GraphPruneError
from graphprune.targets.target import Processor
from graphprune.targets.x86.processors import PROCESSORS

if TYPE_CHECKING:
    from graphprune.runtime.artifact import Network

_COMPILER = "graphprune.targets.network.build"


@dataclass(frozen=True)
class X86:
    """Whole networks for x86-64 processors, by TVM's code generator for LLVM."""

    name: ClassVar[str] = "x86"
    machine: ClassVar[str] = "x86_64"
    processors: ClassVar[tuple[Processor, ...]] = PROCESSORS

    def compile(
        self,
        model: Path,
        *,
        shapes: Mapping[str, tuple[int, ...]],
        processors: Sequence[Processor],
        threads: int,
        tune: float,
    ) -> Network:
        """See `graphprune.targets.target.Target.compile`. Raises GraphPruneError GP108 where TVM is not installed."""
        if find_spec("tvm") is None:
            raise GraphPruneError("GP108", "building for x86 needs TVM", "", "pip install 'graphprune[tvm]'")
        network: Network = import_module(_COMPILER).build(model, shapes, processors, threads, tune)
        return network
