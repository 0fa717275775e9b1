"""Pictures for tests, and what is in the files that the server makes of them."""

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from app.config import get_settings

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def quarters(width: int = 40, height: int = 20) -> Image.Image:
    """A picture whose corners are red, green, blue and white, from the left to the right and downwards."""
    picture = Image.new("RGB", (width, height), RED)
    half, middle = width // 2, height // 2
    for color, corner in ((GREEN, (half, 0)), (BLUE, (0, middle)), (WHITE, (half, middle))):
        picture.paste(color, (*corner, corner[0] + half, corner[1] + middle))
    return picture


def png(width: int = 40, height: int = 20) -> bytes:
    return encoded(quarters(width, height), "PNG")


def corners(picture: Image.Image) -> list[tuple[int, int, int]]:
    """The colors near the corners, rounded to 0 or 255."""
    rgb = picture.convert("RGB")
    right, bottom = picture.width - 3, picture.height - 3
    found: list[Any] = [rgb.getpixel(place) for place in ((2, 2), (right, 2), (2, bottom), (right, bottom))]
    return [(*(255 * (value > 127) for value in color),) for color in found]


def files() -> set[str]:
    """The names of all stored files."""
    return {file.name for file in Path(get_settings().media_folder).rglob("*") if file.is_file()}
