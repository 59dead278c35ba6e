import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.errors import ImageError
from seewhy.images import PIXEL_LIMIT, read


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width, height):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def icon_holding(png):
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png


SOURCES = {
    "PIL image": Image.fromarray,
    "array HWC": lambda rgb: rgb,
    "array CHW": lambda rgb: np.moveaxis(rgb, 2, 0),
    "flipped view": lambda rgb: rgb[::-1][::-1],
    "float 0..1": lambda rgb: rgb / 255,
    "float 0..255": lambda rgb: rgb.astype(np.float32),
    "float16": lambda rgb: (rgb / 255).astype(np.float16),
    "int64": lambda rgb: rgb.astype(np.int64),
    "uint16": lambda rgb: rgb.astype(np.uint16) * 257,
    "uint16 of the other byte order": lambda rgb: (rgb.astype(np.uint16) * 257).astype(">u2"),
    "tensor HWC": torch.from_numpy,
    "tensor CHW": lambda rgb: torch.from_numpy(rgb).permute(2, 0, 1),
    "tensor that takes gradients": lambda rgb: (torch.from_numpy(rgb).permute(2, 0, 1) / 255).requires_grad_(),
    "RGBA array": lambda rgb: np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)]),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_every_kind_of_source_gives_the_same_pixels(make, noise):
    np.testing.assert_array_equal(read(make(noise)).pixels, noise)


def test_a_bfloat16_tensor_is_read_to_its_own_precision(noise):
    found = read((torch.from_numpy(noise) / 255).bfloat16()).pixels.astype(int)
    assert np.abs(found - noise).max() <= 1  # 8 bits of mantissa


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP", "JPEG2000"])
def test_every_lossless_file_gives_its_pixels_from_a_path_and_from_bytes(kind, noise, encoded, tmp_path):
    data = encoded(noise, kind, **({"lossless": True} if kind == "WEBP" else {}))
    path = tmp_path / "picture with spaces.ü"  # the content says what it is, not the name
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), memoryview(data)):
        np.testing.assert_array_equal(read(source).pixels, noise)
    assert read(path).name == path.name


def test_a_jpeg_is_nearly_what_was_saved(encoded):
    smooth = np.linspace(0, 255, 40 * 50 * 3).reshape(40, 50, 3).astype(np.uint8)
    found = read(encoded(smooth, "JPEG", quality=95)).pixels.astype(int)
    assert np.abs(found - smooth).mean() < 2


GREY = {
    "HW": lambda grey: grey,
    "HW1": lambda grey: grey[:, :, None],
    "1HW": lambda grey: grey[None],
    "PIL L": Image.fromarray,
    "PIL F in 0..1": lambda grey: Image.fromarray((grey / 255).astype(np.float32)),
    "PIL 16-bit": lambda grey: Image.fromarray(grey.astype(np.uint16) * 257),
    "PIL LA": lambda grey: Image.fromarray(grey).convert("LA"),
}


@pytest.mark.parametrize("make", GREY.values(), ids=GREY)
def test_grey_becomes_three_equal_channels(make, noise):
    grey = noise[:, :, 0]
    np.testing.assert_array_equal(read(make(grey)).pixels, np.stack([grey] * 3, axis=2))


def test_black_and_white_masks_become_0_and_255(noise):
    mask = noise[:, :, 0] > 127
    for source in (mask, Image.fromarray(mask)):
        np.testing.assert_array_equal(read(source).pixels[:, :, 1], np.where(mask, 255, 0))


@pytest.mark.parametrize("bright", [65535, 200], ids=["bright", "dark"])
@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_sixteen_bits_are_scaled_down_in_either_byte_order_and_darkness_is_told(mode, bright):
    values = np.linspace(0, bright, 30).reshape(5, 6).astype(np.uint16)
    raw = values.astype(">u2" if mode.endswith("B") else "<u2").tobytes()
    found = read(Image.frombytes(mode, (6, 5), raw))
    np.testing.assert_array_equal(found.pixels[:, :, 0], np.round(values / 257))
    assert bool(found.notes) == (bright <= 4095)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_sixteen_bit_file_keeps_its_greys(kind, encoded):
    values = (np.arange(48, dtype=np.uint16) * 1300).reshape(6, 8)
    found = read(encoded(Image.fromarray(values), kind)).pixels
    np.testing.assert_array_equal(found[:, :, 2], np.round(values / 257))


def test_transparency_is_dropped_and_told_and_the_colours_below_stay(noise, encoded):
    rgba = np.dstack([noise, np.zeros(noise.shape[:2], np.uint8)])
    found = read(encoded(rgba))
    np.testing.assert_array_equal(found.pixels, noise)
    assert found.notes == ("transparency was dropped",)


def test_a_palette_becomes_its_colours(encoded):
    colours = [(250, 3, 9), (1, 200, 77), (12, 13, 14)]
    indices = np.array([[0, 1, 2], [2, 2, 1]], np.uint8)
    image = Image.fromarray(indices).convert("L")
    image.putpalette([value for colour in colours for value in colour])
    for options in ({}, {"transparency": 1}):
        found = read(encoded(image, "PNG", **options))
        np.testing.assert_array_equal(found.pixels, np.array(colours, np.uint8)[indices])
        assert bool(found.notes) == bool(options)


def test_printers_ink_becomes_light(encoded):
    inks = np.random.default_rng(1).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    expected = (255.0 - inks[:, :, :3]) * (255.0 - inks[:, :, 3:]) / 255
    found = read(encoded(Image.frombytes("CMYK", (5, 6), inks.tobytes()), "TIFF")).pixels
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_stands_upright(orientation, noise, stored, encoded):
    found = read(encoded(stored(noise, orientation), orientation=orientation))
    np.testing.assert_array_equal(found.pixels, noise)
    assert found.orientation == orientation


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_ignored(orientation, noise, encoded):
    found = read(encoded(noise, orientation=orientation))
    np.testing.assert_array_equal(found.pixels, noise)
    assert found.orientation == 1


def test_the_first_frame_of_an_animation_is_taken(encoded):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    found = read(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(found.pixels, np.array(frames[0]))


def test_overshoot_of_a_filter_does_not_turn_the_picture_black(noise):
    unit = noise / 255.0
    unit[0, 0] = 1.004
    unit[1, 1] = -0.003
    expected = noise.copy()
    expected[0, 0], expected[1, 1] = 255, 0
    np.testing.assert_array_equal(read(unit).pixels, expected)
    np.testing.assert_array_equal(read(unit * 255).pixels, expected)


def test_the_callers_buffer_may_be_used_again_and_is_not_written_to(noise):
    before = noise.copy()
    found = read(noise)
    np.testing.assert_array_equal(noise, before)
    noise[:] = 0
    np.testing.assert_array_equal(found.pixels, before)


BAD_ARRAYS = {
    "not a number": (np.full((4, 4, 3), np.nan), "NaN"),
    "infinite": (np.full((4, 4, 3), np.inf), "infinite"),
    "negative": (np.full((4, 4, 3), -3.0), "from -3 to -3"),
    "negative whole numbers": (np.full((4, 4, 3), -1), "from -1 to -1"),
    "too bright": (np.full((4, 4, 3), 300), "0..255"),
    "no rows": (np.zeros((0, 4, 3), np.uint8), "4 x 0"),
    "two channels": (np.zeros((5, 6, 2), np.uint8), r"\(5, 6, 2\)"),
    "a line": (np.zeros(4, np.uint8), r"\(4,\)"),
    "a batch": (np.zeros((2, 3, 4, 4), np.uint8), r"\(2, 3, 4, 4\)"),
    "complex": (np.zeros((4, 4, 3), complex), "complex128"),
    "objects": (np.full((4, 4, 3), None), "object"),
    "words": (np.full((4, 4, 3), "a"), "<U1"),
}


@pytest.mark.parametrize(("array", "told"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_an_array_that_is_no_picture_is_told_what_it_is(array, told):
    with pytest.raises(ImageError, match=told):
        read(array)


ADDRESSES = ["http://a.b/c.png", "https://a.b/c.png", "data:image/png;base64,AAAA"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (b"", "is empty"),
        (b"hello, I am no picture", "Convert it to PNG or JPEG"),
        ("nowhere/at all.png", "no file 'nowhere/at all.png'"),
        ("x" * 5000, "5,000 characters"),
        ("a\0b", "no file"),
        ("/dev/zero", "not a file"),
        *[(address, "opens no network") for address in ADDRESSES],
    ],
)
def test_what_cannot_be_read_is_told_with_a_remedy(source, told):
    with pytest.raises(ImageError, match=told):
        read(source)


def test_folders_and_empty_files_are_told_by_name(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"'empty.png' is empty"):
        read(tmp_path / "empty.png")
    with pytest.raises(ImageError, match="not a file"):
        read(tmp_path)


@pytest.mark.parametrize("thing", [None, 5, ["a.png"]])
def test_a_thing_that_is_no_picture_is_told_by_its_type(thing, unchecked):
    with pytest.raises(ImageError, match=f"A {type(thing).__name__} is not a picture"):
        read(thing)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "AVIF", "JPEG2000"])
def test_a_truncated_file_is_told_and_not_shown_half_grey(kind, noise, encoded):
    data = encoded(noise, kind)
    with pytest.raises(ImageError, match=r"damaged|Convert") as told:
        read(data[: len(data) // 2])
    assert "Copy or download it again" in str(told.value) or "Convert it" in str(told.value)


@pytest.mark.parametrize("wrap", [bytes, icon_holding], ids=["plain", "inside an icon"])
def test_a_small_file_that_claims_a_huge_picture_is_not_unpacked(wrap):
    with pytest.raises(ImageError, match=f"limit of {PIXEL_LIMIT:,} pixels"):
        read(wrap(png_claiming(50_000, 50_000)))


@pytest.mark.parametrize("wrap", [Image.fromarray, np.asarray, torch.from_numpy], ids=["PIL", "array", "tensor"])
def test_the_limit_holds_for_every_source_to_the_pixel(wrap, noise):
    assert read(wrap(noise), pixel_limit=23 * 37).pixels.shape == noise.shape
    with pytest.raises(ImageError, match=r"37 x 23 = 851 pixels, over the limit of 850"):
        read(wrap(noise), pixel_limit=23 * 37 - 1)


def test_an_icon_that_lies_about_its_size_is_held_to_the_limit(noise, encoded):
    with pytest.raises(
        ImageError, match=r"37 x 23 = 851 pixels, over the limit of 300"
    ):  # the header says 16 x 16 = 256
        read(icon_holding(encoded(noise)), pixel_limit=300)


def test_postscript_is_refused_before_another_program_is_started_on_it(monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(/etc/passwd) run\nshowpage\n"
    with pytest.raises(ImageError, match="Convert it to PNG or JPEG"):
        read(script)


@pytest.mark.parametrize("data", [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7\n", b"SIMPLE  =  T"])
def test_other_formats_are_refused(data):
    with pytest.raises(ImageError, match="is not a picture that seewhy reads"):
        read(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "TGA", "ICO", "JPEG2000"])
def test_damaged_bytes_are_read_or_refused_but_never_crash(kind, noise, encoded):
    chance = np.random.default_rng(sum(kind.encode()))
    data = encoded(noise, kind, **({"orientation": 6} if kind in ("JPEG", "PNG", "TIFF") else {}))
    refused = 0
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 3, 9))):
            damaged[chance.integers(min(len(data), chance.choice((60, 10_000))))] = chance.integers(256)
        try:
            pixels = read(bytes(damaged), pixel_limit=100_000).pixels
        except ImageError:
            refused += 1
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
    assert refused  # else the bytes were not damaged at all
