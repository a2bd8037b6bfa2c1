"""Data sets: the embedded digits, and small synthetic files in place of the large ones."""

import numpy as np
import pytest
import torchvision

from ncflow.errors import BadInput
from realnets.data import DataSet, data_root, load


def images(samples=40, classes=4, shape=(28, 28), seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(samples) % classes
    return {
        "x_train": rng.integers(0, 256, (samples, *shape), dtype=np.uint8),
        "y_train": rng.permutation(y),
        "x_test": rng.integers(0, 256, (9, *shape), dtype=np.uint8),
        "y_test": np.arange(9) % classes,
    }


def write(folder, name="mnist", **changes):
    arrays = images() | changes
    np.savez(folder / f"{name}.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder


def test_digits_are_all_there_and_standardised_by_one_mean_and_std():
    data = load("digits")
    assert data.x_train.shape == (1797, 64) and data.x_train.dtype == np.float32
    assert data.y_train.shape == (1797,) and data.classes == 10 and data.shape == (1, 8, 8)
    assert data.x_test is None and data.y_test is None
    assert data.x_train.mean() == pytest.approx(0, abs=1e-6) and data.x_train.std() == pytest.approx(
        1, rel=1e-6
    )
    unit = load("digits", scaling="unit")
    assert unit.x_train.min() == 0 and unit.x_train.max() == 1 and unit.sha256 == data.sha256
    np.testing.assert_allclose(data.x_train, (unit.x_train - data.mean[0]) / data.std[0], atol=1e-6)
    np.testing.assert_allclose(load("digits", scaling="tripled").x_train, 3 * data.x_train, rtol=1e-6)


def test_mnist_uses_the_authors_constants(tmp_path):
    arrays = images()
    data = load("mnist", root=write(tmp_path))
    expected = (arrays["x_train"].reshape(40, -1) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(data.x_train, expected, atol=1e-6)
    np.testing.assert_array_equal(data.y_train, arrays["y_train"])
    assert data.x_test is not None and data.x_test.shape == (9, 784)
    assert data.classes == 4 and data.describe()["samples"] == 40


def test_fashion_mnist_is_standardised_by_its_own_training_set(tmp_path):
    data = load("fashion_mnist", root=write(tmp_path, "fashion_mnist"))
    assert data.x_train.mean() == pytest.approx(0, abs=1e-5) and data.x_train.std() == pytest.approx(
        1, rel=1e-5
    )
    few = load("fashion_mnist", 16, write(tmp_path, "fashion_mnist"))
    assert few.mean == data.mean and few.std == data.std


def test_cifar10_is_channels_first_whichever_way_it_is_stored(tmp_path):
    last = images(shape=(32, 32, 3))
    write(tmp_path, "cifar10", **last)
    a = load("cifar10", root=tmp_path)
    first = {k: np.moveaxis(v, 3, 1) if k[0] == "x" else v for k, v in last.items()}
    write(tmp_path, "cifar10", **first)
    b = load("cifar10", root=tmp_path)
    np.testing.assert_array_equal(a.x_train, b.x_train)
    assert a.sha256 == b.sha256 and a.shape == (3, 32, 32)
    green = (last["x_train"][0, :, :, 1] / 255 - 0.4822) / 0.2435
    np.testing.assert_allclose(a.x_train[0].reshape(3, 32, 32)[1], green, atol=1e-6)


def test_the_hash_is_of_the_content_not_of_the_file(tmp_path):
    plain = load("mnist", root=write(tmp_path)).sha256
    np.savez_compressed(tmp_path / "mnist.npz", **images())
    assert load("mnist", root=tmp_path).sha256 == plain
    changed = images()["x_train"]
    changed[0, 0, 0] ^= 1
    assert load("mnist", root=write(tmp_path, x_train=changed)).sha256 != plain


def test_digits_of_another_content_are_refused(monkeypatch):
    from realnets import data

    monkeypatch.setattr(data, "_digits", lambda: images(shape=(1, 8, 8)))
    with pytest.raises(BadInput, match="dataset = 'digits': content hash"):
        load("digits")


def test_subset_is_balanced_deterministic_and_nested(tmp_path):
    write(tmp_path)
    data = load("mnist", 16, tmp_path, seed=3)
    assert (
        np.bincount(data.y_train).tolist() == [4, 4, 4, 4]
        and data.x_test is not None
        and len(data.x_test) == 9
    )
    again = load("mnist", 16, tmp_path, seed=3)
    np.testing.assert_array_equal(data.x_train, again.x_train)
    assert not np.array_equal(data.x_train, load("mnist", 16, tmp_path, seed=4).x_train)
    larger = {row.tobytes() for row in load("mnist", 32, tmp_path, seed=3).x_train}
    assert {row.tobytes() for row in data.x_train} < larger


@pytest.mark.parametrize("subset", [0, 4, 17, 44, -4, 8.0, True])
def test_subsets_that_cannot_be_balanced_are_refused(tmp_path, subset):
    with pytest.raises(
        BadInput, match=r"subset = .*: a multiple of 4 from 8 to 40, as the smallest class has 10"
    ):
        load("mnist", subset, write(tmp_path))


CASES = {
    "missing array": ({"y_test": None}, "has no y_test"),
    "float images": ({"x_train": np.zeros((40, 28, 28))}, r"holds x_train of float64"),
    "wrong size": ({"x_train": np.zeros((40, 27, 28), np.uint8)}, r"accepted is uint8 \(N, 28, 28\)"),
    "wrong length": ({"y_train": np.arange(39) % 4}, r"y_train of int64 \(39,\)"),
    "float labels": ({"y_train": np.zeros(40)}, "y_train of float64"),
    "label too large": ({"y_train": np.arange(40) % 11}, r"a label outside 0\.\.9 in y_train"),
    "negative label": ({"y_test": np.arange(9) - 1}, r"a label outside 0\.\.9 in y_test"),
    "one class": (
        {"y_train": np.zeros(40, int), "y_test": np.zeros(9, int)},
        r"labels \[0\]; accepted are two",
    ),
    "gap in the classes": ({"y_train": np.arange(40) % 4 * 2}, "without gaps"),
    "unseen test class": ({"y_test": np.full(9, 7)}, "a class in y_test that y_train lacks"),
    "class of one": ({"y_train": np.arange(40) % 3 + 3 * (np.arange(40) == 0)}, "class 3 with 1 training image"),
    "pickled objects": ({"x_train": np.array([None] * 40)}, r"cannot be read \(ValueError\)"),
}


@pytest.mark.parametrize("changes, message", CASES.values(), ids=CASES)
def test_files_that_do_not_hold_a_data_set_are_refused_by_name(tmp_path, changes, message):
    with pytest.raises(BadInput, match=message) as error:
        load("mnist", root=write(tmp_path, **changes))
    assert "mnist" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_corrupt_files_are_refused(tmp_path, damage):
    path = write(tmp_path) / "mnist.npz"
    whole = path.read_bytes()
    middle = whole[:3000] + bytes(255 - v for v in whole[3000:3100]) + whole[3100:]
    path.write_bytes(middle if damage is None else damage)
    with pytest.raises(BadInput, match=r"mnist\.npz cannot be read"):
        load("mnist", root=tmp_path)


def test_an_array_in_place_of_an_archive_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "a.npy").rename(tmp_path / "mnist.npz")
    with pytest.raises(BadInput, match="cannot be read"):
        load("mnist", root=tmp_path)


def test_a_missing_file_without_network_says_where_to_put_what(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route\nto host")

    monkeypatch.setattr(torchvision.datasets, "MNIST", offline)
    root = tmp_path / "new" / "folder"
    with pytest.raises(BadInput) as error:
        load("mnist", root=root)
    text = str(error.value)
    assert f"{root / 'mnist.npz'} is missing" in text and "(no route to host)" in text and "\n" not in text
    assert "x_train, y_train, x_test, y_test" in text and not list(root.iterdir())


def test_a_download_is_converted_once(tmp_path, monkeypatch, capsys):
    arrays = images(shape=(32, 32, 3))
    calls = []

    class Fake:
        def __init__(self, folder, train, download):
            print("Downloading")
            calls.append(train)
            part = "train" if train else "test"
            self.data, self.targets = arrays[f"x_{part}"], arrays[f"y_{part}"].tolist()

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    data = load("cifar10", root=tmp_path)
    assert calls == [True, False] and [p.name for p in tmp_path.iterdir()] == ["cifar10.npz"]
    assert load("cifar10", root=tmp_path).sha256 == data.sha256 and len(calls) == 2
    np.testing.assert_array_equal(data.y_train, arrays["y_train"])
    assert capsys.readouterr().out == ""


def test_where_files_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("NCFLOW_DATA", str(tmp_path / "env"))
    assert data_root("here").name == "here" and data_root() == tmp_path / "env"
    monkeypatch.delenv("NCFLOW_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert data_root() == tmp_path / "ncflow"


def test_sizes(tmp_path):
    """Padding is black before scaling, pooling a mean."""
    arrays, root = images(), write(tmp_path)
    plain = load("mnist", root=root).x_train.reshape(-1, 28, 28)
    padded = load("mnist", root=root, size=32)
    assert padded.shape == (1, 32, 32) and padded.x_test is not None and padded.x_test.shape == (9, 1024)
    whole = padded.x_train.reshape(-1, 32, 32)
    np.testing.assert_array_equal(whole[:, 2:30, 2:30], plain)
    edge = np.pad(arrays["x_train"], ((0, 0), (2, 2), (2, 2))) / 255
    np.testing.assert_allclose(whole, (edge - 0.1307) / 0.3081, atol=1e-6)
    small = load("mnist", root=root, size=14)
    assert small.shape == (1, 14, 14)
    expected = arrays["x_train"].reshape(-1, 14, 2, 14, 2).mean((2, 4)) / 255
    np.testing.assert_allclose(small.x_train.reshape(-1, 14, 14), (expected - 0.1307) / 0.3081, atol=1e-6)
    for size in (0, 13, 31, 2.0, -28):
        with pytest.raises(BadInput, match=f"image_size = {size}: a divisor of 28, or 28 plus an even number"):
            load("mnist", root=root, size=size)  # type: ignore[arg-type]


GOOD = {"name": "mine", "x_train": np.zeros((6, 4), np.float32), "y_train": np.arange(6) % 2, "x_test": None, "y_test": None,
        "classes": 2, "shape": (1, 2, 2), "mean": (0.0,), "std": (1.0,), "sha256": ""}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), [
    ({"x_train": np.full((6, 4), np.nan, np.float32)}, "x_train = 'NaN or infinite in image 0'"),
    ({"x_train": np.r_[np.zeros((5, 4)), [[0, 0, np.inf, 0]]]}, "x_train = 'NaN or infinite in image 5'"),
    ({"x_train": np.zeros((6, 5))}, r"x_train = 'float64 \(6, 5\)': floats \(N, 4\), as the shape \(1, 2, 2\) says"),
    ({"x_train": np.zeros((6, 4), int)}, "x_train = 'int64"),
    ({"y_train": np.arange(6) % 3}, "y_train = 'label 2 of image 2': labels 0..1"),
    ({"y_train": np.arange(6) - 1}, "y_train = 'label -1 of image 0'"),
    ({"y_train": np.zeros(6)}, r"y_train = 'float64 \(6,\)'"),
    ({"y_train": np.arange(5) % 2}, r"y_train = 'int64 \(5,\)'"),
    ({"y_train": np.zeros(6, int), "classes": 1}, "classes = 1: two or more"),
    ({"y_train": np.zeros(6, int)}, "'class 1 with 0 training images': at least two"),
    ({"y_train": np.arange(6) // 5}, "'class 1 with 1 training image': at least two"),
    ({"x_test": np.full((1, 4), np.nan), "y_test": np.zeros(1, int)}, "x_test = 'NaN"),
])  # fmt: skip
def test_data_of_ones_own_are_checked(changes, message):
    DataSet(**GOOD)
    with pytest.raises(BadInput, match=message) as error:
        DataSet(**(GOOD | changes))
    assert "\n" not in str(error.value)


def test_unknown_names_are_refused():
    with pytest.raises(BadInput, match="dataset = 'minst': one of digits, mnist, fashion_mnist, cifar10"):
        load("minst")
    with pytest.raises(BadInput, match="scaling = 'raw'"):
        load("digits", scaling="raw")
