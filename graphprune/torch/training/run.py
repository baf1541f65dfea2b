"""`graphprune.finetune`: training after a cut, put together from the other files of this folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.utils import parametrize

from graphprune.data.named import imported
from graphprune.dialects.aten.reader import numbers
from graphprune.errors import GraphPruneError
from graphprune.metric import Metric
from graphprune.torch.losses import Function, loss_of
from graphprune.torch.pruned import unwrapped
from graphprune.torch.pruning import copy_of
from graphprune.torch.sparse_masks import bake, put_masks
from graphprune.torch.tensors import places
from graphprune.torch.training import state as states
from graphprune.torch.training.batches import source_of
from graphprune.torch.training.budget import Budget
from graphprune.torch.training.distil import Distillation, Teaching
from graphprune.torch.training.gradual_zeros import GradualZeros
from graphprune.torch.training.loop import Course, Loop
from graphprune.torch.training.lora import merge_low_rank
from graphprune.torch.training.metric import Judge
from graphprune.torch.training.mixing import mixes_of
from graphprune.torch.training.optimizers import Make, optimizer_of
from graphprune.torch.training.randomness import seeded
from graphprune.torch.training.result import Finetuned
from graphprune.torch.training.schedule import Schedule, schedule_of
from graphprune.torch.training.scope import choose, head_of, names_of

_PRECISIONS = {"bfloat16": torch.bfloat16}


def finetune(
    model: nn.Module, data: Any, *,
    epochs: int | None = None, steps: int | None = None, minutes: float | None = None,
    loss: str | Function | None = "cross_entropy",
    teacher: nn.Module | Callable[..., Any] | None = None, distill: float | None = None, temperature: float = 4.0,
    features: Sequence[str] = (), feature_weight: float = 1.0, mix: str | None = None,
    train: str | Sequence[str] = "all", rank: int = 8, keep_zeros: bool = False,
    sparsity: float | None = None, format: str = "unstructured", zeros_by: str = "magnitude",
    batch_norm: Literal["update", "freeze"] = "update",
    optimizer: str | Make = "sgd", rate: float | None = None, weight_decay: float = 5e-4, clip: float | None = None,
    schedule: str | Schedule = "cosine", rewind: float | None = None,
    batch: int = 128, augment: Callable[[Any], Any] | str | None = None, precision: str | None = None,
    validate: Any = None, metric: str | Metric = "accuracy", validate_every: int | None = None,
    patience: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None, resume: bool = False,
    seed: int = 0, tell: Callable[[str], None] | None = None,
) -> Finetuned:  # fmt: skip
    """Train a copy of a module within a budget; `.model` of the result. The same arguments give the same numbers, but
    with `minutes`, where it matters how fast the machine is.

    data:       whole tensors `(inputs, ..., labels)`, a dataset, a DataLoader, batches, a function that returns one of
                these (given the number of the pass, if it takes one), or ``"module:function"``. A batch is `(inputs,
                ..., labels)`, `inputs` alone, or a dict with `labels` beside the arguments of forward
    epochs, steps, minutes: the budget, whichever ends first; validation counts as time
    loss:       a name of `graphprune.torch.losses`, a function of outputs and labels, or None: the teacher alone
    teacher:    a module, or a function of the inputs, whose logits are imitated: ``distill`` of the loss is theirs
                (0.9, or all of it without a loss), at this temperature; features: modules whose outputs are to be those
                of the teacher, weighed with feature_weight
    mix:        half of the batches are mixed, by mixup, cutmix, or one of both ("mixup,cutmix"); with the teacher
                alone, as no labels belong to them
    train:      all, norms, biases, head, lora (PERP: low-rank updates of this rank, norms and biases; merged at the
                end), patterns of names of parameters, or several of these. Masks hold, whatever is trained
    keep_zeros: zeros among the weights stay zero even where there is no mask
    sparsity, format: gradual magnitude pruning: zeros grow to this share of every linear layer and convolution, but
                the one that makes the output, and one that reads an image
    zeros_by:   which weights go: magnitude, the smallest; movement, those that move towards zero
    batch_norm: update the statistics while training, or freeze them
    optimizer:  sgd, adamw, or a function of the parameters; rate: at the highest point of the schedule
    schedule:   cosine, linear, one_cycle, step, constant, or a function from the share that is spent to a factor;
                rewind: replay it from this share on (learning-rate rewinding)
    batch:      samples of a batch, where data does not come in batches; augment: a function of a training batch
    precision:  "bfloat16" for autocast
    validate, metric: data that is not trained with, and what is measured on it (accuracy, loss, a function of outputs
                and labels): before training, after every pass or so many steps. The best moment is the result; after
                `patience` validations without a better one training ends
    checkpoint: a folder that the state is written to every minute and on an interrupt; resume: go on with it, bit by
                bit as if nothing had been

    Raises GraphPruneError: GP101, GP106 and GP107 for options, GP702 for batches that fit neither model nor loss, GP704
    for labels or a loss that is missing, GP707 where the loss is not finite, GP708 for data that ends, GP709 for a
    metric, GP710 where the checkpoint is of another training, GP104 where the folder is taken.
    """
    asked = dict(locals())
    with torch.inference_mode(False), torch.enable_grad(), seeded(seed):
        return _trained(asked)


def _trained(asked: dict[str, Any]) -> Finetuned:
    given = unwrapped(asked["model"]) if isinstance(asked["model"], nn.Module) else asked["model"]
    if isinstance(given, torch.jit.ScriptModule) or not isinstance(given, nn.Module):
        what = f"a {type(given).__name__} cannot be trained here"
        raise GraphPruneError("GP103", what, "", "give a torch.nn.Module")
    names, course = names_of(asked["train"]), replace(_course(asked), asked=_plain(asked, given))
    model = copy_of(given)
    zeros = GradualZeros.on(
        model,
        asked["format"],
        asked["sparsity"],
        asked["keep_zeros"],
        lambda: head_of(model, course.source),
        asked["zeros_by"],
    )
    kept = [*(_keep_zeros(model) if asked["keep_zeros"] else []), *(zeros.names if zeros is not None else ())]
    chosen = set(choose(model, names, asked["rank"], course.source))
    free = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    made = optimizer_of(asked["optimizer"], parameters, asked["rate"], asked["weight_decay"])
    loop = Loop(model, made, replace(course, teaching=_teaching(asked, model), zeros=zeros))
    loop.run(asked["resume"])
    _finish(model, given, loop, kept, free)
    done, name = loop.done, "" if course.judge is None else course.judge.name
    trained, whole = (sum(each.numel() for each in held) for held in (parameters, given.parameters()))
    return Finetuned(
        model=model, history=tuple(loop.history), metric=name, best=loop.best, best_step=loop.best_step,
        steps=done.step, epochs=done.epoch, seconds=done.seconds, trained=trained, parameters=whole,
        stopped=loop.stopped,
    )  # fmt: skip


def _course(asked: dict[str, Any]) -> Course:
    """Everything that can be checked without the model. Raises GraphPruneError."""
    budget = Budget(asked["epochs"], asked["steps"], asked["minutes"])
    budget.check()
    for option in ("batch", "rank", "validate_every", "patience"):
        value = asked[option]
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise GraphPruneError("GP107", f"{value!r} is not a whole number from 1 on", f"option {option}")
    for option, known in (("batch_norm", ("update", "freeze")), ("precision", (None, *_PRECISIONS))):
        if asked[option] not in known:
            what = f"{asked[option]!r} is none of {', '.join(map(str, known))}"
            raise GraphPruneError("GP107", what, f"option {option}")
    if asked["clip"] is not None and not asked["clip"] > 0:
        raise GraphPruneError("GP107", f"{asked['clip']!r} is no length above 0", "option clip")
    for option in ("patience", "validate_every"):
        if asked[option] is not None and asked["validate"] is None:
            what = f"{option} is about validation, and there is no data for it"
            raise GraphPruneError("GP107", what, f"option {option}", "give validate=")
    loss = None if asked["loss"] is None else loss_of(asked["loss"])
    if loss is None and asked["teacher"] is None:
        raise GraphPruneError("GP704", "there is neither a loss nor a teacher", "option loss", "give one of the two")
    if asked["mix"] is not None and loss is not None:
        what = "no labels belong to mixed inputs, and there is a loss beside the teacher's"
        raise GraphPruneError("GP107", what, "option mix", "give loss=None")
    folder = _folder(asked["checkpoint"], asked["resume"])
    return Course(
        budget=budget,
        schedule=schedule_of(asked["schedule"], asked["rewind"]),
        source=source_of(asked["data"], asked["batch"], asked["seed"], "data"),
        loss=loss,
        judge=None if asked["validate"] is None else Judge.of(asked["metric"], loss),
        validation=None
        if asked["validate"] is None
        else source_of(asked["validate"], asked["batch"], None, "validate"),
        augment=_augment(asked["augment"]),
        mixes=() if asked["mix"] is None else mixes_of(asked["mix"]),
        every=asked["validate_every"],
        patience=asked["patience"],
        clip=asked["clip"],
        precision=_PRECISIONS.get(asked["precision"] or ""),
        frozen=asked["batch_norm"] == "freeze",
        checkpoint=folder,
        tell=asked["tell"],
    )


def _folder(checkpoint: Any, resume: bool) -> Path | None:
    """Where the state is written. Raises GraphPruneError: GP107 where there is nothing to go on from, GP104 where the
    folder is taken."""
    if checkpoint is None:
        if resume:
            raise GraphPruneError("GP107", "there is nothing to go on from", "option resume", "give checkpoint=FOLDER")
        return None
    folder = Path(checkpoint)
    if folder.exists() and not resume and (not folder.is_dir() or any(folder.iterdir())):
        remedy = "go on with it (resume), or name another folder"
        raise GraphPruneError("GP104", "there is something of this name already", str(folder), remedy)
    return folder


def _augment(chosen: Any) -> Callable[[Any], Any] | None:
    found = imported(chosen) if isinstance(chosen, str) else chosen
    if found is not None and not callable(found):
        what = f"a {type(found).__name__} is no function of a batch"
        raise GraphPruneError("GP107", what, "option augment")
    function: Callable[[Any], Any] | None = found
    return function


def _teaching(asked: dict[str, Any], student: nn.Module) -> Teaching | None:
    """The teacher, where there is one. Raises GraphPruneError GP107."""
    teacher, share = asked["teacher"], asked["distill"]
    if teacher is None:
        if share is not None or asked["features"]:
            what = "distillation needs a teacher, and there is none"
            raise GraphPruneError("GP107", what, "option distill", "give teacher=, such as the dense model")
        return None
    if not callable(teacher):
        raise GraphPruneError("GP107", f"a {type(teacher).__name__} is no teacher", "option teacher", "give a module")
    alone = asked["loss"] is None
    if alone and share not in (None, 1):
        raise GraphPruneError("GP107", f"distill is {share!r}, and there is no other loss", "option distill")
    share = (1.0 if alone else 0.9) if share is None else share
    names = tuple(asked["features"])
    how = Distillation(share, asked["temperature"], names, asked["feature_weight"])
    how.check()
    return Teaching(teacher, student, how)


def _keep_zeros(model: nn.Module) -> list[str]:
    """Mask the zeros of every weight with two axes or more; the names of what is masked."""
    masks = {}
    for name, place in places(model).items():
        tensor = place.tensor
        masked = isinstance(place.owner, parametrize.ParametrizationList)
        if place.is_parameter and tensor.dim() > 1 and not masked and bool((tensor == 0).any()):
            masks[name] = tensor.detach() != 0
    put_masks(model, masks)
    return list(masks)


def _finish(model: nn.Module, given: nn.Module, loop: Loop, kept: list[str], free: list[nn.Parameter]) -> None:
    """Make the trained copy a model like the given one: the best numbers, no updates beside weights, its modes."""
    if loop.best_tensors:
        states.restore_tensors(model, loop.best_tensors)
    merge_low_rank(model)
    bake(model, kept)
    for parameter in model.parameters():
        parameter.grad = None
        parameter.requires_grad_(False)
    for parameter in free:
        parameter.requires_grad_(True)
    for module, other in zip(model.modules(), given.modules(), strict=True):
        vars(module)["training"] = other.training


def _plain(asked: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """What a checkpoint has to be of: the model and every option that makes a difference, as JSON has it. Of data only
    what it is is known, and of functions their names."""
    left_out = {"model", "checkpoint", "resume", "tell"}
    digest = hashlib.sha256()
    for name, each in sorted(states.tensors_of(model).items()):
        digest.update(f"{name} {tuple(each.shape)} {each.dtype}".encode())
        digest.update(numbers(each.detach()).tobytes())
    found = {name: _named(value) for name, value in asked.items() if name not in left_out}
    return {**found, "model": digest.hexdigest()}


def _named(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return list(value)
    return getattr(value, "__qualname__", type(value).__qualname__)
