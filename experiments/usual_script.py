"""The script that most people would write for the paper's runs: what `ncflow bench train` is compared with.

torchvision's data set with its transforms, a DataLoader, `nn.Sequential`, `torch.optim.Adam` as it comes, and a pass through
the loader for the metrics. Nothing is slowed down on purpose; it runs on its own too:

    python experiments/usual_script.py FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import pairwise

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


def mnist(folder: str) -> Dataset:
    """Training images of MNIST, standardised when they are loaded."""
    how = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    return torchvision.datasets.MNIST(folder, train=True, download=False, transform=how)


def loader(data: Dataset, batch: int, workers: int, shuffle: bool = True) -> DataLoader:
    return DataLoader(data, batch_size=batch, shuffle=shuffle, num_workers=workers)


def mlp(width: int = 512, depth: int = 5, classes: int = 10, inputs: int = 784) -> nn.Sequential:
    sizes = [inputs] + [width] * depth
    layers: list[nn.Module] = [nn.Flatten()]
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(width, classes))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return model


def train_epoch(model: nn.Module, batches: Iterable, optimiser: torch.optim.Optimizer, loss: str, device: str = "cpu") -> None:
    model.train()
    for x, y in batches:
        x, y = x.to(device), y.to(device)
        optimiser.zero_grad()
        logits = model(x)
        if loss == "mse":
            value = F.mse_loss(logits, F.one_hot(y, logits.shape[1]).float())
        else:
            value = F.cross_entropy(logits, y)
        value.backward()
        optimiser.step()


@torch.no_grad()
def metrics(model: nn.Sequential, batches: Iterable, device: str = "cpu", classes: int = 10) -> dict[str, float]:
    """Accuracy, NC1 to NC3 as the paper defines them, and fn, of the features that enter the last layer."""
    model.eval()
    features, labels, right = [], [], 0
    for x, y in batches:
        x, y = x.to(device), y.to(device)
        h = model[:-1](x)
        right += int((model[-1](h).argmax(1) == y).sum())
        features.append(h)
        labels.append(y)
    H, y = torch.cat(features), torch.cat(labels)
    means = torch.stack([H[y == k].mean(0) for k in range(classes)])
    M = means - H.mean(0)
    within = sum(((H[y == k] - means[k]) ** 2).sum() for k in range(classes)) / len(H)
    unit = F.normalize(M, dim=1)
    simplex = (torch.eye(classes, device=device) - 1 / classes) * classes / (classes - 1)
    W: Tensor = model[-1].weight  # type: ignore[assignment]
    return {
        "accuracy": right / len(H),
        "nc1": float(within / ((M**2).sum() / classes)),
        "nc2": float((unit @ unit.T - simplex).norm()),
        "nc3": float(1 - (F.normalize(W, dim=1) * unit).sum(1).mean()),
        "fn": float(H.norm(dim=1).mean()),
    }


class Block(nn.Module):
    """Two convolutions and a projection shortcut where the size changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.skip = nn.Sequential()
        if stride != 1:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.skip(x))


def resnet20(channels: int = 3, classes: int = 10) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    sizes = [16] * 4 + [32] * 3 + [64] * 3
    layers += [Block(a, b, 1 + (a != b)) for a, b in pairwise(sizes)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return model


def main(folder: str, epochs: tuple[int, int] = (200, 400), batch: int = 512) -> None:
    data, model = mnist(folder), mlp()
    for loss, length in zip(("cross_entropy", "mse"), epochs, strict=True):
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, length)
        for epoch in range(length):
            train_epoch(model, loader(data, batch, 2), optimiser, loss)
            schedule.step()
            print(loss, epoch, metrics(model, loader(data, 1024, 2, shuffle=False)))


if __name__ == "__main__":
    main(sys.argv[1])
