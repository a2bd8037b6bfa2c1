"""Data sets by name: scikit-learn's embedded digits, and `.npz` files under one data root.

A file `<root>/<name>.npz` holds x_train, y_train, x_test, y_test (uint8 images, integer labels). A missing
one is made once from torchvision's download. What identifies data is the SHA-256 of the arrays, not of the
file, whose bytes depend on who compressed it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import zipfile
import zlib
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ncflow.errors import BadInput, require

SCALINGS = ("standardised", "tripled", "unit")
_KEYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class _Source:
    """What is known of a data set beforehand; `shape` is (channels, height, width)."""

    shape: tuple[int, int, int]
    classes: int = 10
    torchvision: str = ""  # name of the class there
    mean: tuple[float, ...] = ()  # of x in [0, 1], per channel; empty: measured on the training set
    std: tuple[float, ...] = ()
    sha256: str = ""  # empty: not known, any content is accepted


SOURCES: dict[str, _Source] = {
    "digits": _Source((1, 8, 8), sha256="c65361e75bad6fc47ee91b77f22bf0310c83d7cdd8c3d14e5b2472360a45045c"),
    "mnist": _Source((1, 28, 28), 10, "MNIST", (0.1307,), (0.3081,)),
    "fashion_mnist": _Source((1, 28, 28), 10, "FashionMNIST"),
    "cifar10": _Source((3, 32, 32), 10, "CIFAR10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


@dataclass(frozen=True, eq=False)
class DataSet:
    """Inputs ready for training, checked on construction.

    Attributes:
        name: as asked for.
        x_train: (N, d) float32, flattened (channels, height, width).
        y_train: (N,) int64 in 0..classes-1.
        x_test, y_test: the whole test set, or None where the source has none (digits: all images are for
            training).
        classes: K.
        shape: (channels, height, width), with product d.
        mean, std: what was subtracted and divided by, per channel, in units of pixels scaled to [0, 1].
        sha256: of the source's arrays, before any subset or scaling.

    Raises:
        BadInput: shapes that do not fit each other, numbers that are not finite, labels outside 0..classes-1, fewer
            than two classes, a class with fewer than two training images.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray | None
    y_test: np.ndarray | None
    classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str

    def __post_init__(self) -> None:
        self._check("train", self.x_train, self.y_train)
        if self.x_test is not None and self.y_test is not None:
            self._check("test", self.x_test, self.y_test)
        require(self.classes >= 2, "classes", self.classes, "two or more")
        counts = np.bincount(self.y_train, minlength=self.classes)
        least = int(counts.min())
        what = f"class {int(counts.argmin())} with {least} training image" + "s" * (least != 1)
        require(least >= 2, f"dataset {self.name!r}", what, "at least two images of each class are accepted")

    def _check(self, part: str, x: np.ndarray, y: np.ndarray) -> None:
        width = int(np.prod(self.shape))
        good = x.ndim == 2 and x.shape[1] == width and np.issubdtype(x.dtype, np.floating)
        require(good, f"x_{part}", f"{x.dtype} {x.shape}", f"floats (N, {width}), as the shape {self.shape} says, are accepted")
        good = y.shape == x.shape[:1] and np.issubdtype(y.dtype, np.integer)
        require(good, f"y_{part}", f"{y.dtype} {y.shape}", f"integers ({len(x)},), one per image, are accepted")
        row = next((i for i in range(0, len(x), 4096) if not np.isfinite(x[i : i + 4096]).all()), None)
        if row is not None:
            row += int(np.flatnonzero(~np.isfinite(x[row : row + 4096]).all(1))[0])
        require(row is None, f"x_{part}", f"NaN or infinite in image {row}", "finite numbers are accepted")
        outside = np.flatnonzero((y < 0) | (y >= self.classes))
        wrong = f"label {int(y[outside[0]])} of image {int(outside[0])}" if outside.size else ""
        require(not outside.size, f"y_{part}", wrong, f"labels 0..{self.classes - 1} are accepted")

    def describe(self) -> dict[str, Any]:
        """What a record says of its data."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "samples": len(self.y_train),
            "classes": self.classes,
            "shape": list(self.shape),
            "mean": list(self.mean),
            "std": list(self.std),
        }


def load(
    name: str,
    subset: int | None = None,
    root: str | Path | None = None,
    *,
    scaling: str = "standardised",
    seed: int = 0,
    size: int | None = None,
) -> DataSet:
    """The data set `name`, flattened and scaled.

    Args:
        name: digits, mnist, fashion_mnist or cifar10. digits has 1,797 training images (8x8, from
            `sklearn.datasets`) and no test set; the others have the usual split.
        subset: train on this many images, the same number of each class, drawn by `seed`; a smaller subset of
            the same seed is contained in a larger one. None: the whole training set.
        root: folder of the `.npz` files; default the environment's NCFLOW_DATA, else the user's cache folder.
        scaling: "standardised", (x - mean)/std with the usual constants (mnist, cifar10 per channel) or those
            measured on the whole training set (digits, fashion_mnist: one number each); "tripled", 3 times that;
            "unit", x in [0, 1].
        seed: of the subset.
        size: height and width: larger than the source's, black is added all around (32 for MNIST, as the authors did);
            a divisor of it, blocks of pixels are averaged (14 for MNIST); None as it is.

    Raises:
        BadInput: unknown name or scaling; a file that is missing and cannot be downloaded, or does not hold
            what it should; a subset that is not a multiple of K, has fewer than two images per class or more
            than there are; a size that is neither.
    """
    require(isinstance(name, str) and name in SOURCES, "dataset", name, f"one of {', '.join(SOURCES)}")
    require(
        isinstance(scaling, str) and scaling in SCALINGS, "scaling", scaling, f"one of {', '.join(SCALINGS)}"
    )
    source = SOURCES[name]
    side = source.shape[1]
    fits = size is None or (isinstance(size, int) and size > 0 and (side % size == 0 or (size > side and (size - side) % 2 == 0)))
    require(fits, "image_size", size, f"a divisor of {side}, or {side} plus an even number")
    arrays, top = (_digits(), 16) if name == "digits" else (_read(name, data_root(root)), 255)
    sha256 = _content_hash(arrays)
    if source.sha256 and sha256 != source.sha256:
        raise BadInput("dataset", name, f"content hash {sha256[:16]}..., accepted is {source.sha256[:16]}...")
    mean, std = _moments(source, arrays["x_train"], top) if scaling != "unit" else ((0.0,), (1.0,))
    if scaling == "tripled":
        std = tuple(s / 3 for s in std)

    table = (np.arange(256) / top - np.reshape(mean, (-1, 1))) / np.reshape(std, (-1, 1))
    table = np.broadcast_to(table, (source.shape[0], 256)).astype(np.float32)

    def scaled(x: np.ndarray) -> np.ndarray:
        out = np.empty(x.shape, np.float32)
        for channel, values in enumerate(table):
            out[:, channel] = values[x[:, channel]]
        return _resized(out, size or side, table[:, 0]).reshape(len(x), -1)

    y = arrays["y_train"]
    classes = int(y.max()) + 1
    chosen = slice(None) if subset is None else _balanced(y, classes, subset, seed)
    test = len(arrays["y_test"]) > 0
    return DataSet(
        name,
        scaled(arrays["x_train"][chosen]),
        y[chosen],
        scaled(arrays["x_test"]) if test else None,
        arrays["y_test"] if test else None,
        classes,
        (source.shape[0], size or side, size or side),
        mean,
        std,
        sha256,
    )


def data_root(root: str | Path | None = None) -> Path:
    """`root`, else NCFLOW_DATA, else ncflow's folder in the user's cache folder."""
    if chosen := root or os.environ.get("NCFLOW_DATA"):
        return Path(chosen).expanduser()
    usual = {"darwin": "~/Library/Caches", "win32": os.environ.get("LOCALAPPDATA") or "~/AppData/Local"}
    cache = usual.get(sys.platform) or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "ncflow"


def _digits() -> dict[str, np.ndarray]:
    from sklearn.datasets import load_digits

    x, y = (np.asarray(a) for a in load_digits(return_X_y=True))
    x, y = x.astype(np.uint8).reshape(-1, 1, 8, 8), y.astype(np.int64)
    return {"x_train": x, "y_train": y, "x_test": x[:0], "y_test": y[:0]}


def _read(name: str, root: Path) -> dict[str, np.ndarray]:
    """Arrays of `<root>/<name>.npz`: uint8 images (N, channels, height, width), int64 labels."""
    path = root / f"{name}.npz"
    if not path.exists():
        _convert(name, path)

    def check(good: Any, why: str) -> None:
        require(bool(good), "dataset", name, f"{path} {why}")

    missing, trouble = None, None
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            missing = next((key for key in _KEYS if key not in file), None)
            arrays = {key: file[key] for key in _KEYS if key in file}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as e:
        trouble, arrays = type(e).__name__, {}
    check(trouble is None, f"cannot be read ({trouble}); accepted is an .npz with {', '.join(_KEYS)}")
    check(missing is None, f"has no {missing}; accepted is an .npz with {', '.join(_KEYS)}")
    shape, classes = SOURCES[name].shape, SOURCES[name].classes
    usual = shape[1:] if shape[0] == 1 else (*shape[1:], shape[0])  # grey, or colour last
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        check(
            x.dtype == np.uint8 and x.shape[1:] in (shape, usual),
            f"holds x_{part} of {x.dtype} {x.shape}; accepted is uint8 (N, {', '.join(map(str, usual))})",
        )
        check(
            np.issubdtype(y.dtype, np.integer) and y.shape == x.shape[:1],
            f"holds y_{part} of {y.dtype} {y.shape}; accepted is integers {x.shape[:1]}, one per image",
        )
        inside = not y.size or 0 <= y.min() <= y.max() < classes
        check(inside, f"holds a label outside 0..{classes - 1} in y_{part}")
        if x.shape[1:] != shape:
            x = np.moveaxis(x.reshape(-1, *shape[1:], shape[0]), 3, 1)
        arrays |= {f"x_{part}": x, f"y_{part}": y.astype(np.int64)}
    present = np.unique(arrays["y_train"])
    check(
        present.size >= 2 and present[-1] == present.size - 1,
        f"holds the labels {present.tolist()}; accepted are two classes or more, numbered without gaps",
    )
    check(np.isin(arrays["y_test"], present).all(), "holds a class in y_test that y_train lacks")
    return arrays


def _convert(name: str, path: Path) -> None:
    """Download `name` through torchvision and write it to `path`, whole or not at all."""
    import torchvision

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{name}-") as folder,
            redirect_stdout(sys.stderr),
        ):
            make = getattr(torchvision.datasets, SOURCES[name].torchvision)
            train, test = (make(folder, train=part, download=True) for part in (True, False))
            arrays = (train.data, train.targets, test.data, test.targets)
            whole = Path(folder) / path.name
            held: dict[str, Any] = {
                key: np.asarray(a).astype(np.uint8) for key, a in zip(_KEYS, arrays, strict=True)
            }
            np.savez_compressed(whole, **held)
            os.replace(whole, path)
    except Exception as e:  # whatever stands between here and the file: network, disk, permission
        why = " ".join(str(e).split())[:120] or type(e).__name__
        holds = f"{', '.join(_KEYS)} (uint8 images, integer labels)"
        advice = f"{path} is missing and could not be downloaded ({why}); put an .npz with {holds} there"
        raise BadInput("dataset", name, advice) from None


def _content_hash(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over key, shape and bytes (C order; uint8 images, little-endian int64 labels) of each array."""
    digest = hashlib.sha256()
    for key in _KEYS:
        a = arrays[key]
        digest.update(f"{key}{a.shape}".encode())
        digest.update(np.ascontiguousarray(a, dtype=np.uint8 if key[0] == "x" else "<i8").data)
    return digest.hexdigest()


def _resized(x: np.ndarray, size: int, black: np.ndarray) -> np.ndarray:
    """(N, C, side, side) to (N, C, size, size): a frame of `black` (C,) around it, or means of square blocks."""
    side = x.shape[2]
    if size > side:
        edge = (size - side) // 2
        out = np.empty((*x.shape[:2], size, size), x.dtype)
        out[:] = black.reshape(1, -1, 1, 1)
        out[:, :, edge : edge + side, edge : edge + side] = x
        return out
    block = side // size
    return x if block == 1 else x.reshape(*x.shape[:2], size, block, size, block).mean((3, 5))


def _moments(source: _Source, x: np.ndarray, top: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if source.mean:
        return source.mean, source.std
    counts = np.bincount(x.reshape(-1), minlength=256).astype(np.float64)
    values = np.arange(counts.size) / top
    mean = counts @ values / counts.sum()
    return (float(mean),), (float(np.sqrt(counts @ (values - mean) ** 2 / counts.sum())) or 1.0,)


def _balanced(y: np.ndarray, classes: int, subset: Any, seed: int) -> np.ndarray:
    """Indices, ascending, of `subset`/K images per class: the head of one seeded permutation per class."""
    least = int(np.bincount(y, minlength=classes).min())
    whole = isinstance(subset, int | np.integer) and not isinstance(subset, bool)
    good = whole and subset % classes == 0 and 2 <= subset // classes <= least
    most = f"{least * classes}, as the smallest class has {least} images"
    require(bool(good), "subset", subset, f"a multiple of {classes} from {2 * classes} to {most}")
    draws = [np.random.default_rng([seed, k]).permutation(np.flatnonzero(y == k)) for k in range(classes)]
    return np.sort(np.concatenate([draw[: subset // classes] for draw in draws]))
