"""The Fisher information of masks with the second step: entries of a group are judged together (Kwon et al., A Fast
Post-Training Pruning Framework for Transformers, NeurIPS 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphprune.criteria.kwon import Kwon


@dataclass(frozen=True)
class KwonBlock(Kwon):
    """As ``kwon``, which says how much each group loses; then entries are swapped within each group, by the whole block
    of the Fisher information of its masks (:mod:`graphprune.criteria.rearrange`). Takes two passes."""

    name: ClassVar[str] = "kwon_block"
    rearranges: ClassVar[bool] = True
