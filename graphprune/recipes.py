"""Named sets of options: the best known way to prune for what a user has.

What `auto` takes was measured (benchmarks/accuracy): with data, errors of reconstruction weighed by what they do to the
outputs, and layers fitted through their activations afterwards; without, magnitudes. Noise is not data: what a network
does with inputs it was not made for says little about those it was made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphprune.errors import GraphPruneError, did_you_mean

if TYPE_CHECKING:
    from graphprune.calibrate import Calibration

RECIPES: dict[str, dict[str, Any]] = {
    "magnitude": {"criterion": "l2", "normalize": "mean", "allocate": "global", "recover": ()},
    "reconstruct": {
        "criterion": "obs",
        "normalize": "effect",
        "allocate": "greedy",
        "recover": ("gauss_newton",),
    },
}
"""Name to options of :func:`graphprune.api.prune`."""


DATA, NOISE, NOTHING = "there is calibration data", "there is no data but noise", "there is no calibration data"
"""What there may be to calibrate with."""


def recipe_of(name: str, there_is: str) -> tuple[dict[str, Any], str]:
    """The options of a recipe, and a line that says which it is and why.

    there_is: :data:`DATA`, :data:`NOISE` or :data:`NOTHING`

    >>> recipe_of("auto", NOTHING)[0]["criterion"]
    'l2'

    Raises GraphPruneError: GP106 for names that are not known, GP704 where the recipe needs data that is not there.
    """
    why = "as asked for"
    if name == "auto":
        name, why = ("reconstruct" if there_is == DATA else "magnitude"), there_is
    if name not in RECIPES:
        remedy = did_you_mean(name, ["auto", *RECIPES])
        raise GraphPruneError("GP106", f"there is no recipe {name!r}", "option recipe", remedy)
    chosen = RECIPES[name]
    if chosen["recover"] and there_is == NOTHING:
        raise GraphPruneError("GP704", f"the recipe {name!r} needs calibration data", "option recipe")
    plain = {key: value if isinstance(value, str) else " ".join(value) or "none" for key, value in chosen.items()}
    return dict(chosen), f"recipe {name} ({why}): {', '.join(f'{key} {value}' for key, value in plain.items())}"


def followed(
    recipe: str | None, options: dict[str, Any], recover: str | Sequence[str], calibration: Calibration | None
) -> tuple[dict[str, Any], str | Sequence[str], tuple[str, ...]]:
    """Options and recovery with what a recipe says where nothing else was given, and what to tell about it."""
    if recipe is None:
        return options, recover, ()
    there_is = NOTHING if calibration is None else NOISE if calibration.data_free else DATA
    chosen, told = recipe_of(recipe, there_is)
    fitting = chosen.pop("recover")
    return {**chosen, **options}, recover or fitting, (told,)
