"""Grids of samples with their captions, drawn with Pillow: matplotlib takes a hundred times longer for the same."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from koda_audit.document import SampleGrid

LONGEST = 400  # characters of a text that are measured, more than any line holds
CELL, MARGIN, COLUMNS, CAPTION_LINES = 150, 12, 6, 3
INK, PAPER = (31, 35, 40), (255, 255, 255)


def draw_grid(grid: SampleGrid, thumbnails: Mapping[str, bytes]) -> Image.Image:
    """One picture: title, then the samples from left to right, best first, each over its caption."""
    font, bold = _font(13), _font(16)
    line = 17
    rows = -(-len(grid.ids) // COLUMNS)
    columns = min(COLUMNS, len(grid.ids))
    captions = [_wrap(caption, font, CELL, CAPTION_LINES) for caption in grid.captions]
    cell_height = CELL + max(map(len, captions)) * line + MARGIN + 6
    width = max(MARGIN + columns * (CELL + MARGIN), 480)
    title = _wrap(grid.title, bold, width - 2 * MARGIN, 2)
    top = MARGIN + 22 * len(title) + 6
    sheet = Image.new("RGB", (width, top + rows * cell_height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, text in enumerate(title):
        draw.text((MARGIN, MARGIN + 22 * number), text, font=bold, fill=INK)
    for position, (sample, caption) in enumerate(zip(grid.ids, captions, strict=True)):
        row, column = divmod(position, COLUMNS)
        left, upper = MARGIN + column * (CELL + MARGIN), top + row * cell_height
        picture = _fit(Image.open(io.BytesIO(thumbnails[sample])))
        sheet.paste(picture, (left + (CELL - picture.width) // 2, upper + (CELL - picture.height) // 2))
        for number, text in enumerate(caption):
            draw.text((left, upper + CELL + 3 + line * number), text, font=font, fill=INK)
    return sheet


def _fit(image: Image.Image) -> Image.Image:
    scale = CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, lines: int) -> list[str]:
    """Break at spaces, cut words that are too long, end in … where the text goes on."""
    # control characters would be drawn as boxes, or move the text
    words = "".join(c if c.isprintable() else " " for c in text).split()
    wrapped: list[str] = []
    for word in words:
        joined = f"{wrapped[-1]} {word}" if wrapped else word
        if wrapped and font.getlength(joined) <= width:
            wrapped[-1] = joined
        elif len(wrapped) < lines:
            wrapped.append(_cut(word, font, width))
        else:
            wrapped[-1] = _cut(f"{wrapped[-1]} {word}", font, width, more=True)
            break
    return wrapped


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int, more: bool = False) -> str:
    more, text = more or len(text) > LONGEST, text[:LONGEST]
    if not more and font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


@lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # DejaVu comes with matplotlib and knows Latin, Greek, Cyrillic, Arabic and many signs
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def thumbnail(image: Image.Image) -> bytes:
    """A sample as WebP, its longer side at most twice that of a cell, for screens of twice the resolution.

    A photograph takes 8 kB, a tenth of what it takes as PNG.
    """
    small = image.convert("RGB")
    small.thumbnail((2 * CELL, 2 * CELL), Image.Resampling.LANCZOS)
    return _webp(small, quality=80)


def lossless(png: bytes) -> tuple[bytes, tuple[int, int]]:
    """A chart as lossless WebP, less than half of its PNG, and its width and height in pixels."""
    with Image.open(io.BytesIO(png)) as chart:
        # quick: two thirds of the time for the same size
        return _webp(chart, lossless=True, quality=0, method=1), chart.size


def _webp(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="WEBP", **options)
    return stream.getvalue()


def wanted_ids(grids: Sequence[SampleGrid]) -> list[str]:
    """Every sample that some grid shows, once."""
    return list(dict.fromkeys(sample for grid in grids for sample in grid.ids))
