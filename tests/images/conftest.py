"""Pictures whose every pixel is known, and how a file lays them out under each EXIF orientation."""

import io

import numpy as np
import pytest
from PIL import Image

# The EXIF standard's own words: which side of the upright picture the file's first row and first column are.
FIRST_ROW_AND_COLUMN = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


@pytest.fixture
def noise():
    """An RGB picture of odd, unequal sides in which no two layouts look alike."""
    return np.random.default_rng(7).integers(0, 256, (23, 37, 3), dtype=np.uint8)


@pytest.fixture
def stored():
    """Turn an upright array to how the file holds it under an orientation, by the standard's table."""

    def turn(upright, orientation):
        row, column = FIRST_ROW_AND_COLUMN[orientation]
        sides = {row, column}
        turned = upright[::-1] if "bottom" in sides else upright
        turned = turned[:, ::-1] if "right" in sides else turned
        return np.swapaxes(turned, 0, 1) if row in ("left", "right") else turned

    return turn


@pytest.fixture
def encoded():
    """Return the bytes of a file with these pixels."""

    def encode(pixels, kind="PNG", orientation=1, **options):
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.ascontiguousarray(pixels))
        if orientation != 1:
            exif = Image.Exif()
            exif[0x0112] = orientation
            options["exif"] = exif
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    return encode
