"""Pruning while training: the schedule, the optimizer that follows, ranks that agree, and the pass of torch.fx."""

from __future__ import annotations

import copy
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.optim.swa_utils import AveragedModel

from graphprune.errors import GraphPruneError
from graphprune.torch import Gradual, PrunePass, agree, lightning_callback, pruned_of, transformers_callback
from tests.zoo import vision_operators


def installed(name: str) -> Any:
    """An optional package; torchvision, which it may import, may lack its compiled operators."""
    if importlib.util.find_spec("torchvision") is not None:
        vision_operators.load()
    return pytest.importorskip(name)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip


def images() -> Any:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def train(model: nn.Module, optimizer: Any) -> None:
    optimizer.zero_grad()
    model(images()).square().mean().backward()
    optimizer.step()


def test_the_share_falls_to_the_target_while_training_goes_on() -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    average = AveragedModel(model)
    gradual = Gradual(
        model, images(), macs=0.4, times=3, every=2, begin=1, optimizer=optimizer, averages=[average], align=1
    )
    parameters = list(model.parameters())
    shares, cuts = [], []
    for step in range(10):
        train(model, optimizer)
        average.update_parameters(model)
        if gradual.step() is not None:
            cuts.append(step)
            shares.append(gradual.share)
    assert cuts == [2, 4, 6]
    assert shares == sorted(shares, reverse=True)
    assert gradual.share <= 0.4
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert average.module[0].out_channels == model[0].out_channels < 16  # type: ignore[union-attr,operator,index]
    done = pruned_of(model)
    assert done is not None
    assert done.earlier is not None


@pytest.mark.parametrize("options", [{"macs": 0.0}, {"times": 0}, {"every": 1.5}, {"begin": -1}])
def test_a_schedule_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(GraphPruneError, match="GP107"):
        Gradual(network(), images(), **{"macs": 0.5, "times": 2, "every": 1, **options})


def test_the_cubic_schedule() -> None:
    gradual = Gradual(network(), images(), macs=0.2, times=4, every=1)
    assert gradual.target(0) == 1.0
    assert gradual.target(4) == pytest.approx(0.2)
    assert gradual.target(2) == pytest.approx(1 - 0.8 * (1 - 0.125))


def test_a_pass_of_fx() -> None:
    graph = torch.fx.symbolic_trace(network().eval())
    before = copy.deepcopy(graph.state_dict())
    result = PrunePass(images(), macs=0.5)(graph)
    assert result is not None
    assert result.modified
    assert isinstance(result.graph_module, torch.fx.GraphModule)
    assert result.graph_module(images()).shape == (4, 5)
    assert all(torch.equal(before[name], tensor) for name, tensor in graph.state_dict().items())
    whole = PrunePass(images(), ratio=0.0)(graph)
    assert whole is not None
    assert not whole.modified


def _rank(rank: int, folder: str, drift: bool) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        model = network()
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        gradual = Gradual(model, images(), macs=0.5, times=1, every=1, optimizer=optimizer)
        train(wrapped, optimizer)
        if drift and rank:
            with torch.no_grad():
                model[0].weight.copy_(model[0].weight.flip(0))  # type: ignore[operator,union-attr]
        outcome = "agreed"
        try:
            gradual.step()
        except GraphPruneError as error:
            outcome = error.code
        if outcome == "agreed":
            train(nn.parallel.DistributedDataParallel(model), optimizer)
        torch.save(model.state_dict(), f"{folder}/weights{rank}")
        Path(folder, f"outcome{rank}").write_text(outcome)
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
    os._exit(0)  # what is tested is written; torch's threads now and then abort while an interpreter is taken down


@pytest.mark.parametrize("drift", [False, True])
def test_two_ranks_make_one_plan(tmp_path: Path, drift: bool) -> None:
    torch.multiprocessing.spawn(_rank, (str(tmp_path), drift), nprocs=2)
    outcomes = [(tmp_path / f"outcome{rank}").read_text() for rank in range(2)]
    assert outcomes == (["GP508"] * 2 if drift else ["agreed"] * 2)
    if not drift:
        a, b = (torch.load(tmp_path / f"weights{rank}", weights_only=True) for rank in range(2))
        assert a["0.weight"].shape[0] < 16
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_one_process_agrees_with_itself() -> None:
    from graphprune.plan import Plan

    agree(Plan())


def test_the_callback_of_transformers(tmp_path: Path) -> None:
    transformers = installed("transformers")
    pytest.importorskip("accelerate")

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, pixels: Any, labels: Any = None) -> dict[str, Any]:
            logits = self.inner(pixels)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    model = Classifier()
    gradual = Gradual(model.inner, images(), macs=0.5, times=2, every=1)
    data = [{"pixels": image, "labels": torch.tensor(k % 5)} for k, image in enumerate(images())]
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=4, per_device_train_batch_size=2, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=data, callbacks=[transformers_callback(gradual)])
    trainer.train()
    assert gradual.cuts == 2
    assert gradual.share <= 0.5


@pytest.mark.parametrize("optimizers", [1, 2])
def test_the_callback_of_lightning(optimizers: int) -> None:
    lightning = installed("lightning.pytorch")

    class Classifier(lightning.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def training_step(self, batch: Any, _: int) -> Any:
            return self.inner(batch).square().mean()

        def configure_optimizers(self) -> Any:
            made = [torch.optim.Adam(each.parameters()) for each in (self, nn.Linear(2, 2))]
            return made[0] if optimizers == 1 else made

    model = Classifier()
    model.automatic_optimization = optimizers == 1
    gradual = Gradual(model.inner, images(), macs=0.5, times=2, every=1)
    trainer = lightning.Trainer(
        max_steps=2, accumulate_grad_batches=2 if optimizers == 1 else 1, callbacks=[lightning_callback(gradual)],
        logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    data = torch.utils.data.DataLoader([images()[k] for k in range(4)] * 2, batch_size=2)
    if optimizers == 2:
        with pytest.raises(GraphPruneError, match="GP107 the trainer has 2 optimizers"):
            trainer.fit(model, data)
        return
    trainer.fit(model, data)
    assert gradual.steps == trainer.global_step == 2  # of two batches each
    assert gradual.cuts == 2
    assert gradual.share <= 0.5
