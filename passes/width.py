"""Remove whole channels, heads and features: the network stays dense and becomes narrower."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from graphprune.pipeline import Pass, PassResult


@dataclass(frozen=True)
class Width(Pass):
    """Make a model narrower until it meets a budget; the options are those of `graphprune.api.plan`.

        n (g i) h w, (g o) i ...  -->  the same with fewer g, i, o, wherever they run

    macs, params, bytes are the shares that may remain, ratio the share of channels that goes. The interface of the
    model stays. Nothing is verified here: give the pipeline `verify_between` for that.
    """

    name: ClassVar[str] = "width"
    macs: float | None = None
    params: float | None = None
    bytes: float | None = None
    ratio: float | None = None
    criterion: str = "l2"
    reduction: str = "mean"
    normalize: str = "mean"
    ranking: str = "global"
    max_ratio: float = 0.9
    min_width: int = 1
    align: int | str = 1
    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    heads: str = "both"
    seed: int = 0

    def apply(self, model: Any) -> PassResult:
        """Prune a copy. Raises GraphPruneError as `graphprune.api.plan` does, BudgetNotMet among them."""
        from graphprune import api

        options = {option.name: getattr(self, option.name) for option in fields(self)}
        result = api.prune(model, verify=False, **options)
        if result.report.cut == 0:
            return PassResult(model, False, result.report)
        return PassResult(result.model, True, result.report)
