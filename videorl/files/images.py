"""Pictures that videos begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from videorl.errors import PromptError
from videorl.types import BLANK

if TYPE_CHECKING:
    from PIL.Image import Image


def read_image(path: str, width: int, height: int) -> Image:
    """Return a picture in RGB, upright as its EXIF says, in its own size; of `BLANK` a grey one.

    Args:
        path: Of any kind of file that Pillow opens.
        width: Of `BLANK`, in pixels.
        height: Of `BLANK`, in pixels.

    Raises:
        PromptError: It cannot be read.
    """
    from PIL import Image, ImageOps

    if path == BLANK:
        return Image.new("RGB", (width, height), (128, 128, 128))
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PromptError(f"image {path} cannot be read: {error}") from error


def problem_of_image(path: str) -> str | None:
    """Return why a file is no picture by its header, without decoding it; None if it is."""
    from PIL import Image

    try:
        with Image.open(path):
            return None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"image {path} cannot be read: {error}"
