"""The accuracy of a ResNet of CIFAR-10 that was pruned by the recipe `reconstruct` and trained on for some minutes.

    python benchmarks/accuracy/finetune.py --data FOLDER --weights resnet56-4bfd9763.th --work FOLDER [--minutes 10]
        [--steps N] [--speedup 2.11] [--optimizer sgd] [--rate 3e-3] [--pictures FOLDER] [--test] [--json PATH]

Data and weights as for examples/cifar10_finetune.py. The dense network is the teacher: its logits, and the outputs of
its three stages, which keep their shapes as only widths inside residual blocks are cut. Every image is moved and
mirrored by itself. The result is the last step. Of all training images the dense network knows the labels by heart, so
that accuracy on those which are held out here (2,000) says little: beside it is told how far the network is from its
teacher on them, moved, with squares cut out, and mixed, and on pictures of another kind (--pictures, a folder of them).
With --test the 10,000 test images are looked at, once, at the end.
--work keeps the pruned network and the state of the training; the same command goes on with them.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "examples"), str(HERE)]

import agreement  # noqa: E402
import cifar10_data  # noqa: E402
import torch  # noqa: E402
from cifar10_finetune import Data, ResNet, accuracy, blocks_in, read_weights  # noqa: E402
from measure import machine, note, write_json  # noqa: E402
from muon import muon  # noqa: E402
from resnet import ROWS, Bench, Row, streams  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import graphprune as gp  # noqa: E402

HELD, CALIBRATION = 2000, 2048
STAGES = ("layer1", "layer2", "layer3")
_RECIPE = "obs by effect + gauss_newton"


def fast(module: nn.Module) -> nn.Module:
    """With channels beside each other in memory, which convolutions on processors like."""
    found: nn.Module = module.to(memory_format=torch.channels_last)
    return found


def pruned(bench: Bench, row: Row, given: argparse.Namespace) -> nn.Module:
    """The network that the recipe makes, from the folder of an earlier run where there is one."""
    folder = given.work / f"pruned-{given.speedup:g}"
    if not folder.exists():
        note("pruning")
        model, train = bench.dense(), bench.train
        result = gp.prune(
            model, train[:2], macs=1 / given.speedup, ignore=streams(gp.analyze(model, train[:2])), recover=row.recover,
            calibration=bench.calibration(), **row.options,
        )  # fmt: skip
        gp.save(result.model, folder)
    found: nn.Module = gp.load(lambda: ResNet(blocks_in(bench.weights)), folder)
    return found.eval()


def batch_of(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Moved and mirrored images, and their labels."""
    images, labels = batch
    return agreement.moved(images).contiguous(memory_format=torch.channels_last), labels


def trained(student: nn.Module, teacher: nn.Module, train: Data, given: argparse.Namespace) -> Any:
    """The student after its minutes."""
    by_name = given.optimizer != "muon"
    return gp.finetune(
        fast(student), train, minutes=given.minutes, steps=given.steps, teacher=fast(teacher),
        loss=None if given.distill == 1 else "cross_entropy", distill=given.distill, temperature=given.temperature,
        features=STAGES if given.features else (), feature_weight=given.features, mix=given.mix,
        batch_norm=given.batch_norm, optimizer=given.optimizer if by_name else partial(muon, rate=given.rate),
        rate=given.rate if by_name else None, schedule=given.schedule, precision=given.precision, augment=batch_of,
        seed=given.seed, tell=note, checkpoint=given.work / f"training-{given.name}", resume=True,
    )  # fmt: skip


def judged(models: dict[str, nn.Module], teacher: nn.Module, images: Tensor, given: argparse.Namespace) -> Any:
    """Divergence from the teacher and share of its answers, by kind of input and model."""
    found = {}
    pictures = sorted(given.pictures.iterdir()) if given.pictures else ()
    for kind, inputs in agreement.inputs(images, pictures).items():
        wanted = agreement.answers(teacher, inputs)
        found[kind] = {
            name: agreement.compared(agreement.answers(each, inputs), wanted) for name, each in models.items()
        }
        shown = (f"{name} {away:.4f}, {same:.2%} the same" for name, (away, same) in found[kind].items())
        print(f"divergence from the teacher, {kind}: {'; '.join(shown)}")
    return found


def main() -> None:
    given = arguments()
    if given.threads:
        torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    note(f"machine: {machine()}")
    images, labels = cifar10_data.load(given.data, "train")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    rest, held = order[:-HELD], order[-HELD:]
    bench = Bench(read_weights(given.weights), images[order[:CALIBRATION]], (images[held], labels[held]))
    student, teacher = pruned(bench, ROWS[_RECIPE], given), bench.dense()
    before = time.process_time()
    result = trained(student, teacher, (images[rest], labels[rest]), given)
    seconds = time.process_time() - before
    model = result.model.to(memory_format=torch.contiguous_format)
    print(result)
    held_out = [accuracy(each, bench.test) for each in (student, model)]
    print(f"{held_out[0]:.2%} before, {held_out[1]:.2%} after, of {HELD} held images")
    near = judged({"before": student, "after": model}, bench.dense(), images[held], given)
    print(f"{result.seconds:.0f} seconds by the clock, {seconds:.0f} of processors since this process began")
    found = {
        "steps": result.steps, "seconds": result.seconds, "processor": seconds, "held": held_out, "near": near,
        "history": result.to_dict()["history"], "options": {name: str(value) for name, value in vars(given).items()},
    }  # fmt: skip
    if given.test:
        test = cifar10_data.load(given.data, "test")
        for name, each in (("dense", teacher), ("pruned", student), ("trained", model)):
            found[name] = accuracy(each, test)
            print(f"{name}: {found[name]:.2%} of {len(test[1])} test images")
    write_json(given.json, "accuracy_finetune", found)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The accuracy of a ResNet pruned by a recipe and trained on.")
    parser.add_argument("--data", type=Path, required=True, help="a folder with CIFAR-10")
    parser.add_argument("--weights", type=Path, required=True, help="of a ResNet-20, -32, -44, -56 or -110")
    parser.add_argument("--work", type=Path, required=True, help="a folder for the pruned network and the state")
    parser.add_argument("--name", default="run", help="of the training in that folder")
    parser.add_argument("--speedup", type=float, default=2.11, help="how many times fewer MACs")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--steps", type=int, help="of 128 images; the minutes where not given")
    parser.add_argument("--optimizer", default="sgd", choices=("sgd", "adamw", "muon"))
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--schedule", default="one_cycle")
    parser.add_argument("--distill", type=float, default=0.9)
    parser.add_argument("--mix", help="mixup, cutmix, or both with a comma between them; with --distill 1")
    parser.add_argument("--batch-norm", default="update", choices=("update", "freeze"))
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--features", type=float, default=1.0, help="the weight of the outputs of stages; 0 for none")
    parser.add_argument("--precision", default="bfloat16", type=lambda text: None if text == "float32" else text)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--pictures", type=Path, help="a folder of other pictures, to compare with the teacher on")
    parser.add_argument("--test", action="store_true", help="look at the test images, once, at the end")
    parser.add_argument("--json", metavar="PATH")
    return parser.parse_args()


if __name__ == "__main__":
    main()
