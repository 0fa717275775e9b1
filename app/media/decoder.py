"""The program that decodes a picture: `python -I decoder.py MAX_PIXELS PICTURE PREVIEW`, with the upload as its input.

It runs once per upload, in a process of its own (`decoding.py`). It imports no other module of the project, has an
empty environment, and limits its own memory, time and files before it reads a byte. It decodes the first frame, applies
the orientation, converts the colors to sRGB, and writes two WebP files without metadata to the file descriptors
PICTURE and PREVIEW. Its output is one line of JSON: size and blurhash, or why it refuses the picture.
"""

import json
import math
import os
import resource
import sys
from io import BytesIO
from typing import Any

from PIL import Image, ImageCms, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
# WebP allows no longer side.
MAX_SIDE = 16_383
PREVIEW_SIDE = 400
QUALITY = 80
# Of a picture of 12 megapixels, 1 takes a third of the time of 4, the default, for a tenth more bytes.
METHOD = 1
# Address space. Pictures of 40 megapixels take up to 0.4 GB (docs/reliability.md).
MEMORY_BYTES_PER_PIXEL = 12
BASE_MEMORY_BYTES = 256_000_000
MAX_CPU_SECONDS = 8
MAX_FILE_BYTES = 64_000_000
MAX_OPEN_FILES = 64
NICENESS = 10
BLURHASH_COLUMNS, BLURHASH_ROWS, BLURHASH_SIDE = 4, 3, 20
ORIENTATION = 0x0112
TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~"


class RefusedError(Exception):
    """Why the picture is refused: `unsupported`, `too_large` or `damaged`."""


def limit_resources(max_pixels: int) -> None:
    """Limit what this process can take, for whatever the decoders do from here on."""
    max_memory = BASE_MEMORY_BYTES + MEMORY_BYTES_PER_PIXEL * max_pixels
    for what, most in (
        (resource.RLIMIT_AS, max_memory),
        (resource.RLIMIT_CPU, MAX_CPU_SECONDS),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (limit, limit))
    os.nice(NICENESS)


def decode(upload: Any, max_pixels: int) -> Image.Image:
    """Return the first frame in RGB or RGBA, upright and in sRGB. Raises `RefusedError`."""
    Image.MAX_IMAGE_PIXELS = None  # Checked here, because Pillow only warns up to twice the limit.
    try:
        picture = Image.open(upload, formats=FORMATS)
    except UnidentifiedImageError:
        raise RefusedError("unsupported") from None
    if picture.width * picture.height > max_pixels or max(picture.size) > MAX_SIDE:
        raise RefusedError("too_large")
    picture.load()
    orientation = _orientation(picture)
    upright = _in_srgb(picture)
    return upright.transpose(TRANSPOSED[orientation]) if orientation in TRANSPOSED else upright


def _orientation(picture: Image.Image) -> object:
    try:
        return picture.getexif().get(ORIENTATION)
    except Exception:
        return None


def _in_srgb(picture: Image.Image) -> Image.Image:
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I;16"):
        picture = picture.point(lambda value: value / 256).convert("L")
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    plain = picture if picture.mode in {"RGB", "RGBA", "CMYK", "L"} else picture.convert(mode)
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            fits = {"RGB ": {"RGB", "RGBA"}, "CMYK": {"CMYK"}, "GRAY": {"L"}}
            if plain.mode in fits.get(source.profile.xcolor_space, ()):
                is_same_mode = plain.mode == mode
                converted = ImageCms.profileToProfile(
                    plain,
                    source,
                    ImageCms.createProfile("sRGB"),
                    outputMode=None if is_same_mode else mode,
                    inPlace=is_same_mode,
                )
                plain = converted or plain
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # A damaged profile: show the colors as they are.
    return plain if plain.mode == mode else plain.convert(mode)


def blurhash(picture: Image.Image) -> str:
    """Return the blurhash of the picture (https://github.com/woltapp/blurhash/blob/master/Algorithm.md)."""
    small = picture.copy()
    small.thumbnail((BLURHASH_SIDE, BLURHASH_SIDE))
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")
    width, height = small.size
    raw = small.tobytes()
    linear = [(v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4) for v in range(256)]
    factors: list[list[float]] = []
    for row in range(BLURHASH_ROWS):
        down = [math.cos(math.pi * row * y / height) for y in range(height)]
        for column in range(BLURHASH_COLUMNS):
            across = [math.cos(math.pi * column * x / width) for x in range(width)]
            scale = (1 if row == column == 0 else 2) / (width * height)
            sums = [0.0, 0.0, 0.0]
            for place in range(width * height):
                basis = down[place // width] * across[place % width]
                for color in range(3):
                    sums[color] += basis * linear[raw[3 * place + color]]
            factors.append([scale * total for total in sums])
    average, *others = factors
    largest = max(abs(value) for factor in others for value in factor)
    quantized = max(0, min(82, math.floor(largest * 166 - 0.5)))
    maximum = (quantized + 1) / 166
    digits = _base83((BLURHASH_COLUMNS - 1) + (BLURHASH_ROWS - 1) * 9, 1) + _base83(quantized, 1)
    red, green, blue = (_to_srgb(value) for value in average)
    digits += _base83((red << 16) + (green << 8) + blue, 4)
    for factor in others:
        levels = [
            max(0, min(18, math.floor(math.copysign(abs(value / maximum) ** 0.5, value) * 9 + 9.5))) for value in factor
        ]
        digits += _base83(levels[0] * 19 * 19 + levels[1] * 19 + levels[2], 2)
    return digits


def _to_srgb(value: float) -> int:
    value = max(0.0, min(1.0, value))
    return int((value * 12.92 if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055) * 255 + 0.5)


def _base83(number: int, length: int) -> str:
    return "".join(_DIGITS[number // 83**place % 83] for place in reversed(range(length)))


def main(max_pixels: int, picture_fd: int, preview_fd: int) -> None:
    limit_resources(max_pixels)
    try:
        picture = decode(sys.stdin.buffer, max_pixels)
        width, height = picture.size
        with os.fdopen(picture_fd, "wb") as file:
            picture.save(file, "WEBP", quality=QUALITY, method=METHOD)
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        with os.fdopen(preview_fd, "wb") as file:
            picture.save(file, "WEBP", quality=QUALITY, method=METHOD)
        answer: dict[str, object] = {"width": width, "height": height, "blurhash": blurhash(picture)}
    except RefusedError as refused:
        answer = {"refused": str(refused)}
    except MemoryError:
        answer = {"refused": "too_large"}
    except Exception:
        answer = {"refused": "damaged"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
