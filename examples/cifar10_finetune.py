"""Prune a trained ResNet on CIFAR-10, fine-tune it, save it, load it again, and run it in onnxruntime.

    pip install -e ".[torch,ort]"
    python examples/cifar10_finetune.py --data cifar-10-batches-bin --weights resnet20-12fca82f.th

`--data` is a folder with CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar.html, the binary or the python version).
`--weights` are those of a ResNet-20, -32, -44, -56 or -110 of https://github.com/akamaster/pytorch_resnet_cifar10, or
the same state dict as safetensors; without them the network is trained first, from nothing, for as many epochs.

What is graphprune here is `gp.prune_`, `plan.transplant`, `gp.save` and `gp.load`; all else is a training script.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cifar10_data
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

import graphprune as gp

Data = tuple[Tensor, Tensor]
"""Images, float32 [n, 3, 32, 32], and labels, int64 [n]."""


# ------------------------------------------------------------------ the network
class Shortcut(nn.Module):
    """Option A of the paper: every second pixel, and channels of zeros before and behind; no parameters."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.padding = (0, 0, 0, 0, added // 2, added // 2)

    def forward(self, images: Tensor) -> Tensor:
        return F.pad(images[:, :, ::2, ::2], self.padding)


class Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity() if before == width else Shortcut(width - before)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(images)))
        return F.relu(self.bn2(self.conv2(hidden)) + self.shortcut(images))


class ResNet(nn.Module):
    """The residual network of He et al. 2015, section 4.2: 6 x blocks + 2 layers."""

    def __init__(self, blocks: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(blocks, 16, 16)
        self.layer2 = self._stage(blocks, 16, 32)
        self.layer3 = self._stage(blocks, 32, 64)
        self.linear = nn.Linear(64, classes)

    def _stage(self, blocks: int, before: int, width: int) -> nn.Sequential:
        first = Block(before, width, stride=1 if before == width else 2)
        return nn.Sequential(first, *(Block(width, width, stride=1) for _ in range(blocks - 1)))

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(images)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        return self.linear(hidden.mean((2, 3)))


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict, from safetensors or from a file of torch.save; no code in the file is run."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    found: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return {name.removeprefix("module."): tensor for name, tensor in found.get("state_dict", found).items()}


def blocks_in(weights: Mapping[str, Tensor]) -> int:
    """The blocks of each stage of the ResNet that a state dict belongs to."""
    return len({name.split(".")[1] for name in weights if name.startswith("layer1.")})


# ------------------------------------------------------------------ training
def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, data: Data, epochs: int, batch: int, title: str
) -> None:
    """Train in place for so many epochs, with a step of the schedule after every batch."""
    model.train()
    images, labels = data
    steps = [order for _ in range(epochs) for order in torch.randperm(len(labels)).split(batch)]
    for order in track(steps, title):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(augmented(images[order])), labels[order])
        loss.backward()
        optimizer.step()
        schedule.step()


def augmented(images: Tensor) -> Tensor:
    """Moved by up to 4 pixels, alike in the whole batch, and half of them mirrored."""
    down, right = torch.randint(0, 9, (2,)).tolist()
    moved = F.pad(images, (4, 4, 4, 4))[:, :, down : down + 32, right : right + 32]
    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, moved, moved.flip(3))


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """The share of images that are told right."""
    model.eval()
    right = [int((model(images).argmax(1) == labels).sum()) for images, labels in batches(data)]
    return sum(right) / len(data[1])


def batches(data: Data, size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(data[0].split(size), data[1].split(size), strict=True)


# ------------------------------------------------------------------ pruning
def prune_and_finetune(
    model: nn.Module, optimizer: torch.optim.Optimizer, train_data: Data, test: Data, given: Any
) -> None:
    """Cut a little, train a little: the model ends with `macs` of its multiply-accumulates.

    The model is cut in place, so the optimizer and the schedule go on with the parameters that they know. The momentum
    of a parameter has to lose what the parameter lost: that is what `transplant` does.
    """
    batch_count = given.epochs * -(-len(train_data[1]) // given.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, batch_count * given.rounds)
    example = test[0][:1]
    for turn in range(1, given.rounds + 1):
        result = gp.prune_(model, example, macs=given.macs ** (1 / given.rounds), criterion=given.criterion)
        result.plan.transplant(optimizer, model)
        before, after = result.report.dense, result.report.pruned  # print(result.report) says more
        print(f"cut {turn}: MACs {before.macs:,} -> {after.macs:,}, ", end="")
        print(f"parameters {before.parameters:,} -> {after.parameters:,}; verified")
        print(f"accuracy after cut {turn}: {accuracy(model, test):.2%}")
        train(model, optimizer, schedule, train_data, given.epochs, given.batch, f"fine-tuning {turn}/{given.rounds}")
        print(f"accuracy after fine-tuning {turn}: {accuracy(model, test):.2%}")


# ------------------------------------------------------------------ files
def reloaded(model: nn.Module, blocks: int, folder: Path) -> nn.Module:
    """The model from a folder of safetensors: the dense class, made as small as the saved one. No pickle."""
    gp.save(model, folder)
    again: nn.Module = gp.load(lambda: ResNet(blocks), folder)
    return again


def run_in_onnxruntime(model: nn.Module, path: Path, images: Tensor) -> Tensor:
    """Export for any number of images, and run."""
    import onnxruntime

    batch = torch.export.Dim("batch")
    torch.onnx.export(
        model.eval(), (images[:2],), str(path), dynamo=True, dynamic_shapes=({0: batch},), input_names=["images"],
        output_names=["scores"], verbose=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def check_files(model: nn.Module, blocks: int, folder: Path, test: Data) -> None:
    """Save, load, export, run, and hold every step against the model."""
    again = reloaded(model.eval(), blocks, folder / "small")
    images, labels = next(batches(test))
    with torch.no_grad():
        expected = model(images)
        assert torch.equal(again.eval()(images), expected), "the model that was loaded computes something else"
    print(f"saved to {folder / 'small'} and loaded again: the same bits")
    found = run_in_onnxruntime(again, folder / "small.onnx", images)
    difference = float((found - expected).abs().max() / expected.abs().max())
    assert difference < 1e-4, f"onnxruntime differs by {difference:.1e}"
    right = (found.argmax(1) == labels).float().mean()
    print(f"{folder / 'small.onnx'} in onnxruntime: differs by {difference:.1e} of the largest score; ", end="")
    print(f"{right:.2%} of {len(labels)} images right")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Prune a ResNet on CIFAR-10, fine-tune it, save it and export it.")
    parser.add_argument("--data", type=Path, help="a folder with CIFAR-10")
    parser.add_argument("--weights", type=Path, help="a state dict: .th, .pt or .safetensors")
    parser.add_argument("--blocks", type=int, default=3, help="of each stage, without weights: 3 is ResNet-20")
    parser.add_argument("--macs", type=float, default=0.5, help="the share of the multiply-accumulates that remains")
    parser.add_argument("--rounds", type=int, default=2, help="how often to cut and fine-tune")
    parser.add_argument("--epochs", type=int, default=1, help="of fine-tuning in each round")
    parser.add_argument("--criterion", default="l2")
    parser.add_argument("--train-images", type=int, default=20000, help="how many to train with, for a quick run")
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.05, help="the learning rate at the start")
    parser.add_argument("--threads", type=int, help="of PyTorch")
    parser.add_argument("--output", type=Path, help="where the files are written, and stay; else nothing stays")
    given = parser.parse_args()
    if given.data is None:
        parser.exit(2, cifar10_data.MISSING.format(folder="(no --data was given)") + "\n")
    return given


def main() -> None:
    given = arguments()
    torch.manual_seed(0)
    if given.threads:
        torch.set_num_threads(given.threads)
    train_data = cifar10_data.load(given.data, "train", given.train_images)
    test = cifar10_data.load(given.data, "test", given.test_images)
    weights = read_weights(given.weights) if given.weights else None
    blocks = blocks_in(weights) if weights else given.blocks
    model = ResNet(blocks)
    optimizer = torch.optim.SGD(model.parameters(), lr=given.rate, momentum=0.9, weight_decay=1e-4)
    if weights:
        model.load_state_dict(weights)
    else:
        constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        train(model, optimizer, constant, train_data, given.epochs, given.batch, "training from nothing")
    print(f"ResNet-{6 * blocks + 2}, {len(train_data[1])} images to train with, {len(test[1])} to test with")
    print(f"accuracy of the dense network: {accuracy(model, test):.2%}")
    prune_and_finetune(model, optimizer, train_data, test, given)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        check_files(model, blocks, folder, test)


if __name__ == "__main__":
    main()
