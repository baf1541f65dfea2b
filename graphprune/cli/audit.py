"""`graphprune audit`: what pruning did to the answers, for whom, and on inputs that nobody calibrated with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graphprune import api
from graphprune.cli.options import Before, Data, Inputs, Output, _share, taking
from graphprune.cli.source import Module, is_callable, module_of, read
from graphprune.errors import GraphPruneError

ALTERATIONS = "noise,blur,contrast"


@taking
def audit(
    dense: Annotated[Path, typer.Argument(metavar="DENSE", help="The model before pruning.", show_default=False)],
    pruned: Annotated[
        list[Path], typer.Argument(metavar="PRUNED...", help="One or more pruned models.", show_default=False)
    ],
    data: Data,
    before: Before,
    module: Module,
    inputs: Inputs,
    output: Output,
    groups: Annotated[
        Path | None,
        typer.Option(
            "--groups",
            help="The group of each sample (.npy); its class where not given.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    drop: Annotated[
        float,
        typer.Option(
            "--drop",
            help="Share of the answers that may be lost: 0.01 or 1%.",
            metavar="SHARE",
            parser=lambda text: _share(str(text), "option --drop", False),
        ),
    ] = 0.01,
    alter: Annotated[
        str,
        typer.Option("--alter", help="What is done to inputs for further comparisons, between commas; or none."),
    ] = ALTERATIONS,
) -> int:
    """Compare pruned models with the dense one on test data: answers that changed, classes that lose more than others,
    and inputs with noise, blur and less contrast.

    graphprune audit resnet.onnx small.onnx --calibration test.npz --labels labels.npy
    """
    from graphprune.audit.run import audit as compare
    from graphprune.data.arrays import opened

    request, console = data.request(), output.console
    if request is None:
        remedy = "add --calibration SOURCE, with data that nothing was calibrated with"
        raise GraphPruneError("GP701", "there is no data to compare on", "option calibration", remedy)
    with console.working("reading"):
        source = read(dense, before, module, inputs.seed)
        models = {str(each): _loaded(each, dense, module, inputs.seed) for each in pruned}
        known = None if groups is None else opened(groups)
    with console.working("running"):
        found = compare(
            source.model, models, source.example_inputs, data=request, groups=known, drop=drop,
            alter=[] if alter == "none" else alter.split(","), seed=inputs.seed, sizes=inputs.sizes,
        )  # fmt: skip
    console.show(str(found), found.to_dict())
    return 0


def _loaded(path: Path, dense: Path, module: Module, seed: int) -> Any:
    """A pruned model; a folder of `gp.save` is one of the module that the dense one is."""
    if is_callable(dense) and path.suffix.lower() != ".pt2":
        return module_of(str(dense), path, module.input, seed)
    return api.load(path)
