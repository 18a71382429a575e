"""picture.py: a PNG of the right size, low frequencies at the bottom, time to the right."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from duovox.sound.picture import LOUD, QUIET, colours, sheet


def mel(rows: int = 8, frames: int = 6) -> NDArray[np.float32]:
    return np.full((rows, frames), QUIET, np.float32)


def pixels(png: bytes) -> NDArray[np.uint8]:
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return np.asarray(image)


def test_the_lowest_band_is_the_bottom_row_and_time_runs_right() -> None:
    loud = mel()
    loud[0, 1] = LOUD
    bright = pixels(sheet([[loud]], zoom=1)).sum(axis=2).astype(int)
    assert np.unravel_index(bright.argmax(), bright.shape) == (7, 1)
    assert (np.sort(bright.ravel())[:-1] == bright.min()).all()


@pytest.mark.parametrize(("rows", "columns", "zoom", "gap"), [(1, 1, 1, 4), (2, 3, 3, 4), (3, 1, 2, 0)])
def test_a_sheet_has_its_size(rows: int, columns: int, zoom: int, gap: int) -> None:
    picture = pixels(sheet([[mel()] * columns] * rows, zoom, gap))
    assert picture.shape == (rows * (8 * zoom + gap) - gap, columns * (6 * zoom + gap) - gap, 3)


def test_pictures_lie_in_their_places_and_gaps_are_white() -> None:
    """A short row leaves white space; each mel pixel is zoom x zoom."""
    loud = np.full((8, 6), LOUD, np.float32)
    picture = pixels(sheet([[mel(), loud], [loud]], zoom=2, gap=3))
    quiet_colour, loud_colour = colours(mel())[0, 0], colours(loud)[0, 0]
    assert (picture[:16, :12] == quiet_colour).all()
    assert (picture[:16, 15:27] == loud_colour).all()
    assert (picture[19:, :12] == loud_colour).all()
    assert (picture[16:19] == 255).all()
    assert (picture[:, 12:15] == 255).all()
    assert (picture[19:, 15:] == 255).all()


def test_zoom_repeats_pixels() -> None:
    ramp = np.linspace(QUIET, LOUD, 48, dtype=np.float32).reshape(8, 6)
    np.testing.assert_array_equal(pixels(sheet([[ramp]], zoom=3))[::3, ::3], pixels(sheet([[ramp]], zoom=1)))


def test_louder_is_brighter_and_the_ends_are_held() -> None:
    levels = np.linspace(QUIET, LOUD, 50, dtype=np.float32)[None]
    brightness = colours(levels)[0].astype(int) @ np.array([299, 587, 114])
    assert (np.diff(brightness) > 0).all()
    ends = np.array([[QUIET - 100, QUIET, LOUD, LOUD + 100]], np.float32)
    np.testing.assert_array_equal(colours(ends)[0, [0, 3]], colours(ends)[0, [1, 2]])
    assert colours(ends)[0, 0].tolist() == [0, 0, 4]
    assert colours(ends)[0, 3].tolist() == [252, 255, 164]
