"""Pictures show what they are given: tiles pixel by pixel, planes by hand, animations frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
from glauber.errors import InvalidModelError
from PIL import Image

from examples.mnist_ebm import pictures


def test_tiles_hold_each_image_in_its_frame():
    images = np.arange(3 * 4).reshape(3, 2, 2).astype(np.uint8) % 4
    found = pictures.tiles(images, 2, 4)
    assert found.shape == (8, 8)
    assert np.array_equal(found[1:3, 5:7], images[1] / 3)
    assert np.array_equal(found[5:7, 1:3], images[2] / 3)
    assert np.all(found[4:, 4:] == 0.35)  # no fourth image
    assert np.all(found[0] == 0.35)


def test_rows_by_digit_leave_out_what_is_too_few(tmp_path):
    images = np.zeros((30, 5, 5), dtype=np.uint8)
    labels = np.array([1] * 15 + [7] * 14 + [2])
    rows = pictures.by_digit(images, labels, 12)
    assert list(rows) == ["1", "7"]
    pictures.draw_samples(tmp_path / "rows.png", rows, 2, "ones and sevens")
    with Image.open(tmp_path / "rows.png") as drawn:
        assert drawn.width > 300
    with pytest.raises(InvalidModelError, match="same number"):
        pictures.draw_samples(tmp_path / "no.png", {"a": images[:2], "b": images[:3]}, 2)


def test_the_plane_is_that_of_the_largest_variances():
    rng = np.random.default_rng(0)
    images = np.zeros((500, 3, 3), dtype=np.uint8)
    images[:, 0, 1], images[:, 2, 2] = rng.integers(0, 16, 500), rng.integers(0, 8, 500)
    images[:, 1, 1] = rng.integers(0, 2, 500)
    mean, axes, share = pictures.principal_plane(images)
    assert mean == pytest.approx(images.reshape(500, 9).mean(0))
    assert abs(axes[0, 1]) > 0.99
    assert abs(axes[1, 8]) > 0.99
    variances = images.reshape(500, 9).var(0)
    assert share == pytest.approx((variances[1] + variances[8]) / variances.sum(), abs=0.01)


def falling(n_frames=90, n=6, side=12):
    rng = np.random.default_rng(1)
    states = (rng.random((n_frames, n, side, side)) < np.linspace(0.5, 0.05, n_frames)[:, None, None, None]).astype(
        np.uint8
    )
    return states, states.sum((2, 3)).astype(np.float64)


def test_the_landscape_is_drawn_and_shapes_checked(tmp_path):
    states, energies = falling()
    real, real_energies = states[-1], energies[-1]
    pictures.draw_landscape(tmp_path / "plane.png", real, real_energies, states, energies)
    assert (tmp_path / "plane.png").stat().st_size > 10_000
    with pytest.raises(InvalidModelError, match="one each image"):
        pictures.draw_landscape(tmp_path / "no.png", real, real_energies, states, energies[:-1])


def test_an_animation_keeps_its_limits(tmp_path, monkeypatch):
    states, energies = falling(12)
    path = tmp_path / "film.gif"
    pictures.animate(path, states, energies, range(1, 13), 2)
    with Image.open(path) as film:
        assert film.n_frames == 12
        film.seek(0)
        first = film.info["duration"]
        film.seek(11)
        assert (first, film.info["duration"]) == (80, 2000)
    whole = path.stat().st_size
    monkeypatch.setattr(pictures, "GIF_BYTES", whole // 2)
    pictures.animate(path, states, energies, range(1, 13), 2)
    assert path.stat().st_size <= whole // 2
    with Image.open(path) as film:
        assert 2 <= film.n_frames < 12
    with pytest.raises(InvalidModelError, match="two frames"):
        pictures.animate(path, states[:1], energies[:1], [1], 2)
