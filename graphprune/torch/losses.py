"""Losses by name: what criteria that need gradients differentiate. Imports torch.

A loss is the mean over the samples of a batch. One of your own is a function ``(outputs, labels) -> scalar`` that gets
what the model returns; those with names get the logits of it, or else its first tensor of floating-point numbers.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.registry import LOADING_FAILS

Function = Callable[[Any, Any], Tensor]

IGNORED = -100
"""A label of classes that does not count, as in PyTorch."""


@dataclass(frozen=True)
class Loss:
    """One loss that has a name: a function of a prediction and labels."""

    function: Function
    labelled: bool = True


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.dim() == 3 and labels.shape == logits.shape[:2]:
        return _token_cross_entropy(logits[:, :-1], labels[:, 1:])
    return _entropy(logits, labels)


def _token_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return _entropy(logits.movedim(-1, 1), labels)


def _entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """For logits ``[batch, classes, ...]``, and classes ``[batch, ...]`` or shares of classes of the logits' shape."""
    if labels.shape == logits.shape and labels.is_floating_point():
        return functional.cross_entropy(_wide(logits), _wide(labels))
    _expect(logits.dim() >= 2 and labels.shape == logits.shape[:1] + logits.shape[2:], logits, labels)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise GraphPruneError("GP702", f"labels are numbers of classes, and these are of {labels.dtype}", "labels")
    counted = labels[labels != IGNORED]
    if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < logits.shape[1]:
        what = f"labels go from {int(counted.min())} to {int(counted.max())} for {logits.shape[1]} classes"
        remedy = f"number the classes from 0 to {logits.shape[1] - 1}; {IGNORED} does not count"
        raise GraphPruneError("GP702", what, "labels", remedy)
    if not counted.numel():
        raise GraphPruneError("GP702", "not one label of a batch counts", "labels")
    return functional.cross_entropy(_wide(logits), labels.long(), ignore_index=IGNORED)


def _mse(outputs: Tensor, labels: Tensor) -> Tensor:
    _expect(outputs.shape == labels.shape, outputs, labels)
    return (_wide(outputs) - labels).square().mean()


def _self(outputs: Tensor, _: Any) -> Tensor:
    return _wide(outputs).square().sum() / (2 * max(1, outputs.shape[0] if outputs.dim() else 1))


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _expect(fits: bool, outputs: Tensor, labels: Tensor) -> None:
    if not fits:
        what = f"labels of shape {tuple(labels.shape)} do not fit outputs of shape {tuple(outputs.shape)}"
        raise GraphPruneError("GP702", what, "labels")


LOSSES = {
    "cross_entropy": Loss(_cross_entropy),
    "token_cross_entropy": Loss(_token_cross_entropy),
    "mse": Loss(_mse),
    "self": Loss(_self, labelled=False),
}
"""
- ``cross_entropy``: labels are numbers of classes, for logits ``[batch, classes, ...]``. For a language model, logits
  ``[batch, tokens, vocabulary]``, they are the token ids themselves: each position predicts the next. Labels of -100 do
  not count.
- ``token_cross_entropy``: a class for each token, at its own position.
- ``mse``: the mean squared difference from labels of the shape of the outputs.
- ``self``: half the squared length of the outputs of a sample. It needs no labels; its gradient says how much a weight
  moves the outputs, in their own direction.
"""


def loss_of(chosen: str | Function) -> Function:
    """A loss as a function of what a model returns and labels; a name, a function, or the place of one
    (``"module:function"``). Raises GraphPruneError GP704 where it is not known, or cannot be imported."""
    if callable(chosen):
        return _checked(chosen)
    if chosen in LOSSES:
        return _checked(_named(chosen, LOSSES[chosen]))
    if ":" not in chosen:
        raise GraphPruneError("GP704", f"there is no loss {chosen!r}", "option loss", did_you_mean(chosen, LOSSES))
    try:
        function: Function = pkgutil.resolve_name(chosen)
    except LOADING_FAILS as error:
        what = f"the loss {chosen!r} cannot be imported: {type(error).__name__}: {error}"
        raise GraphPruneError("GP704", what, "option loss") from error
    return _checked(function)


def _named(name: str, loss: Loss) -> Function:
    def function(outputs: Any, labels: Any) -> Tensor:
        found = prediction(outputs)
        if not loss.labelled:
            return loss.function(found, None)
        if labels is None:
            remedy = "give labels, one for each batch; or loss='self', which needs none"
            raise GraphPruneError("GP704", f"the loss {name!r} needs labels", "data", remedy)
        try:
            given = torch.as_tensor(labels, device=found.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise GraphPruneError("GP702", f"labels are no tensor: {error}", "labels") from error
        return loss.function(found, given)

    return function


def _as_tensor(labels: Any, outputs: Any) -> Any:
    """Labels where the outputs are; as they are where they are no numbers, such as texts."""
    if labels is None:
        return None
    device = next((each.device for each in pytree.tree_leaves(outputs) if isinstance(each, Tensor)), None)
    try:
        return torch.as_tensor(labels, device=device)
    except (TypeError, ValueError, RuntimeError):
        return labels


def _checked(function: Function) -> Function:
    def checked(outputs: Any, labels: Any) -> Tensor:
        loss: Any = function(outputs, _as_tensor(labels, outputs))
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
            kind = f"a tensor of {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise GraphPruneError("GP704", f"a loss is a tensor with one floating-point number, not {kind}", "loss")
        return loss.reshape(())

    return checked


def prediction(outputs: Any) -> Tensor:
    """What a loss is about: the logits of an output that has them, else the first tensor of floating-point numbers.

    >>> prediction((torch.tensor([3]), torch.tensor([0.5])))
    tensor([0.5000])
    """
    logits = outputs.get("logits") if isinstance(outputs, dict) else getattr(outputs, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    for each in pytree.tree_leaves(outputs):
        if isinstance(each, Tensor) and each.is_floating_point():
            return each
    raise GraphPruneError("GP704", "the model returns no tensor of floating-point numbers", "loss")
