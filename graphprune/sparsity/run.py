"""Making a model sparse, from the choice to the checked result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from graphprune import api
from graphprune.analysis import Analysis, analyze_program
from graphprune.calibrate import Calibration
from graphprune.dialects import tools_of
from graphprune.dialects.tools import Model
from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.formats.format import Format
from graphprune.plan import Plan
from graphprune.program import Array
from graphprune.sparsity import recover as recovery
from graphprune.sparsity.check import verify_sparse
from graphprune.sparsity.choose import Choice, applied, choose
from graphprune.sparsity.permute import Ordered, ordered
from graphprune.sparsity.report import SparsityReport, report_of
from graphprune.verify import Verification, verify_order


@dataclass(frozen=True, eq=False)
class Sparsified:
    """What sparsifying made of a model.

    model:  the sparse model, of the type that went in
    choice: the masks of its layers, and what stays dense
    report: layer by layer, in text and as data; `print(result.report)`
    verification: the outcome of the checks; None when they were not asked for
    plan:   the channels that were cut before, where channels and zeros shared a budget
    orders: by the name of a group, which of its old entries stands at each place, where channels were permuted
    """

    model: Model
    choice: Choice
    report: SparsityReport
    verification: Verification | None = None
    plan: Plan | None = None
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def masks(self) -> dict[str, Array]:
        """The name of a stored tensor -> True where it is kept, in its shape."""
        return {each.tensor: each.mask() for each in self.choice.layers}


def sparsify(
    model: Model | Analysis,
    example_inputs: Any = None,
    *,
    format: str | Format,
    sparsity: float | None = None,
    macs: float | None = None,
    criterion: Any = "l2",
    allocate: str = "uniform",
    recover: str | Sequence[str] = (),
    permute: bool = False,
    only: Sequence[str] = (),
    ignore: Sequence[str] = (),
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    calibration: Any = None,
    verify: bool = True,
    **options: Any,
) -> Sparsified:
    """Write zeros into the weights of a copy of a model, in a pattern that kernels can use; shapes stay.

    format:    `8x1`, `2:4`, `2:4/8`, `balanced/64`, `tile/64`, `pattern:4/8`, `unstructured`: see `graphprune.formats`
    sparsity:  the share of weights to remove, in [0, 1]; not for formats that fix it, such as 2:4
    macs:      in its place, the share of the multiply-accumulates with weights that are not zero: cut channels and
               zeros compete for it, and what has the least error on held-out data is taken. Then there are also
               `validation=`, and `width=` with options of `gp.plan`; see :mod:`graphprune.sparsity.divide`
    criterion: how important a weight is: l2 (its square), another criterion of weights or gradients, wanda, or obs
    allocate:  uniform: every layer has this sparsity; erk: small layers stay denser; global: all layers together, by
               importance
    recover:   what to do for the weights that stay, from calibration data: names of `graphprune.sparsity.recover`.
               With the criterion obs, sparsegpt chooses the zeros as it goes
    permute:   for N:M, N:M/V and balanced/M: first put coupled channels into the order in which the zeros leave the
               most importance. The network computes the same, and its tensors are permuted: see `.orders`
    only, ignore: patterns of weights or operators to make sparse alone, or to leave dense. What `only` names is also
               taken where it would be left dense on purpose (GP802)
    sizes:     numbers for dynamic axes by name, for the inputs of the checks
    calibration: data for criteria that look at some: what `graphprune.calibration` returns, or anything it takes
    verify:    compare with the dense model whose weights are overwritten with zeros

    For an nn.Module also `masks=` and `dynamic=`: see :func:`graphprune.torch.sparse.sparsify`; by default the copy has
    masks, so that training keeps the zeros.
    Raises GraphPruneError: GP106 and GP107 for options, GP701 to GP704 where the criterion needs what is not there,
    GP302 where no layer can have the format; GP401 where the result is wrong, and GP402 where it cannot be compared.
    """
    choice = {"format": format, "sparsity": sparsity, "criterion": criterion, "allocate": allocate, "recover": recover,
              "permute": permute, "only": tuple(only), "ignore": tuple(ignore)}  # fmt: skip
    how = {"seed": seed, "sizes": sizes, "calibration": calibration, "verify": verify}
    if macs is not None:
        from graphprune.sparsity.divide import sparsify_to

        return sparsify_to(model, example_inputs, macs=macs, **choice, **how, **options)
    if api.is_of_torch(model):
        from graphprune.torch.sparse import sparsify as sparsify_module

        module: Any = model
        return sparsify_module(module, example_inputs, **choice, **how, **options)
    for name in options:
        remedy = did_you_mean(name, [*choice, *how])
        raise GraphPruneError("GP106", f"there is no option {name!r}", "gp.sparsify", remedy)
    return _of_graph(model if isinstance(model, Analysis) else api.analyze(model, example_inputs), choice, how)


def _of_graph(analysis: Analysis, choice: dict[str, Any], how: dict[str, Any]) -> Sparsified:
    """What :func:`sparsify` makes of a graph."""
    analysis.program.check_sizes(how["sizes"])
    how["calibration"] = api.calibrated(analysis, how["calibration"], how["seed"], how["sizes"])
    permute = choice.pop("permute")
    start = arranged(analysis, **how, **choice) if permute else Arranged(analysis)
    chosen = decided(start.analysis, **choice, seed=how["seed"], calibration=how["calibration"])
    return start.told(sparsified(start.analysis, chosen, **how))


@dataclass(frozen=True)
class Arranged:
    """What zeros are chosen for: the network as it is, or in another order, with what shows that it is the same."""

    analysis: Analysis
    order: Ordered | None = None
    verification: Verification | None = None

    def checked(self, verification: Verification) -> Verification:
        """What the zeros are checked for, behind what the order was."""
        before = () if self.verification is None else self.verification.checks
        return Verification((*before, *verification.checks))

    def told(self, result: Sparsified) -> Sparsified:
        """A result with what was done before."""
        if self.order is None:
            return result
        report = result.report.with_(notes=(*self.order.notes, *result.report.notes))
        verification = None if result.verification is None else self.checked(result.verification)
        report = report.with_(verification=verification)
        return replace(result, report=report, verification=verification, orders=self.order.orders)


def arranged(
    analysis: Analysis,
    *,
    verify: bool = True,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    recover: object = (),
    **options: Any,
) -> Arranged:
    """The network in the order that :func:`graphprune.sparsity.permute.ordered` finds, held against the network as it
    was. What recovers weights has no say in it. Raises GraphPruneError GP401 and GP402."""
    order = ordered(analysis, seed=seed, **options)
    tools = tools_of(order.model)
    other = analyze_program(tools.read(order.model, analysis.program.rules))
    if not verify or not order.keep:
        return Arranged(other, order)
    verification = verify_order(analysis, order.model, order.keep, seed=seed, sizes=sizes)
    api.require(verification)
    return Arranged(other, order, verification)


def decided(
    analysis: Analysis,
    *,
    recover: str | Sequence[str] = (),
    within: Callable[[Choice], Choice] | None = None,
    seed: int = 0,
    calibration: Calibration | None = None,
    **choice: Any,
) -> Choice:
    """The masks, and the numbers beside them, that these options of :func:`sparsify` ask for.

    within: what is left of the masks before anything is recovered
    """
    names = recovery.checked(recover, calibration)
    made = choose(analysis, **choice, seed=seed, calibration=calibration)
    made = made if within is None else within(made)
    if not names or calibration is None:
        return made
    return recovery.recovered(analysis, made, names, calibration, seed)


def sparsified(
    analysis: Analysis,
    choice: Choice,
    *,
    verify: bool = True,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    calibration: Calibration | None = None,
) -> Sparsified:
    """The model with the zeros of a choice, reported, and checked where that is asked for.

    Raises GraphPruneError GP401 and GP402.
    """
    model = applied(analysis, choice)
    source = () if calibration is None or not calibration.source else (f"calibration data: {calibration.source}",)
    report = report_of(analysis, choice).with_(notes=(*source, *choice.notes))
    if not verify:
        return Sparsified(model, choice, report)
    verification = verify_sparse(analysis, model, choice.layers, others=choice.others, seed=seed, sizes=sizes)
    api.require(verification)
    return Sparsified(model, choice, report.with_(verification=verification), verification)
