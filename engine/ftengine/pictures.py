"""Pictures for people: boxes with captions, coloured masks with a legend, and pictures side by side.

Everything takes and returns uint8 [H, W, 3] RGB arrays, leaves its arguments as they are, and needs no torch. Small
images are enlarged by a whole factor, pixel by pixel, so that captions fit; lines and letters grow with large ones.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["beside", "draw_boxes", "overlay", "palette"]

IGNORE = 255  # as in ftengine.protocols, which imports torch

FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc"),
    *("Arial.ttf", "arial.ttf", "Arial Unicode.ttf", "msyh.ttc", "PingFang.ttc"),
)
"""What a system may have to write names with that go beyond ASCII, which is all that Pillow's own font knows."""

SMALL = 512
"""Images whose longer side is at most half of this are enlarged until it is about as long."""

NARROW = 10
"""A legend is at least so many times as wide as its letters are high."""

Box = tuple[int, int, int, int]

OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
TOL = ("#332288", "#882255", "#44AA99")
FIRST = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in (*OKABE_ITO, *TOL)], np.uint8)
"""Ten colours that people with any colour vision tell apart: Okabe and Ito's (2008), and three of Paul Tol's (2021)."""


def palette(count: int) -> np.ndarray:
    """Distinct colours, uint8 [count, 3], `count` ≤ 255; colour i is the same for every `count`."""
    return _colours()[:count].copy()


def draw_boxes(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """`image` with `boxes`, [N, 4] as x1 y1 x2 y2 in its pixels, each in the colour of its label, int [N].

    Each caption stands at its box, inside the picture and, where there is room, off the other captions; an empty one
    is left out. Of boxes that overlap the first is on top: give predictions best first. What of a box lies outside
    the image is not drawn, nor is a box that is not finite.
    """
    boxes, labels = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(labels, np.int64)
    if not len(boxes) == len(labels) == len(captions):
        raise ValueError(f"{len(boxes)} boxes with {len(labels)} labels and {len(captions)} captions")
    picture, factor = _enlarged(image)
    pen = _Pen.of(picture, captions)
    canvas = ImageDraw.Draw(picture)
    colours = palette(int(labels.max(initial=-1)) + 1)
    drawn = []
    for box, label, caption in zip(boxes * factor, labels, captions, strict=True):
        if np.isfinite(box).all():
            drawn.append((_within(box, picture.size), tuple(colours[label].tolist()), caption))
    for corners, colour, _ in reversed(drawn):
        pen.rectangle(canvas, corners, colour)
    taken: list[Box] = []
    for corners, colour, caption in drawn:
        if caption:
            taken.append(pen.caption(canvas, corners, colour, caption, taken))
    return np.array(picture)


def overlay(image: np.ndarray, mask: np.ndarray, names: Sequence[str], opacity: float = 0.5) -> np.ndarray:
    """`image` with the classes of `mask`, uint8 [H, W] of indices in `names`, laid over it in colour.

    Below stands a legend of the classes that occur; a picture too narrow for their names gets white at its right.
    Where the mask is 255 the image stays as it is: give that value to a background that is not to be coloured.
    """
    if mask.shape != image.shape[:2]:
        raise ValueError(f"a mask of {mask.shape[0]}×{mask.shape[1]} on an image of {image.shape[0]}×{image.shape[1]}")
    present = [int(value) for value in np.unique(mask) if value != IGNORE]
    if present and present[-1] >= len(names):
        raise ValueError(f"a mask with class {present[-1]} and {len(names)} names")
    table = np.zeros((256, 3), np.float32)
    table[: len(names)] = palette(len(names))
    alpha = np.where(mask == IGNORE, 0, opacity).astype(np.float32)[..., None]
    blended = image * (1 - alpha) + table[mask] * alpha
    picture, _ = _enlarged(np.round(blended).astype(np.uint8))
    if not present:
        return np.array(picture)
    pen = _Pen.of(picture, names)
    width = max(picture.width, NARROW * pen.letters)
    legend = pen.legend([(names[i], tuple(table[i].astype(int).tolist())) for i in present], width)
    sheet = np.full((picture.height, width, 3), 255, np.uint8)
    sheet[:, : picture.width] = np.array(picture)
    return np.concatenate([sheet, legend])


def beside(pictures: Mapping[str, np.ndarray]) -> np.ndarray:
    """One picture of all of them in a row, each under its title, on white."""
    if not pictures:
        raise ValueError("no picture to show")
    enlarged = [_enlarged(picture)[0] for picture in pictures.values()]
    pen = max((_Pen.of(picture, pictures) for picture in enlarged), key=lambda pen: pen.letters)
    top, gap = pen.height + 2 * pen.gap, 2 * pen.gap
    columns = [max(picture.width, pen.width(title)) for title, picture in zip(pictures, enlarged, strict=True)]
    width = sum(columns) + gap * (len(enlarged) - 1)
    sheet = Image.new("RGB", (width, top + max(picture.height for picture in enlarged)), "white")
    canvas = ImageDraw.Draw(sheet)
    left = 0
    for title, picture, column in zip(pictures, enlarged, columns, strict=True):
        canvas.text((left + (column - pen.width(title)) / 2, pen.gap), title, "black", pen.font)
        sheet.paste(picture, (left, top))
        left += column + gap
    return np.array(sheet)


# --- colours -----------------------------------------------------------------------------------------------------


@functools.cache
def _colours() -> np.ndarray:
    """FIRST, and after them each time the colour that is farthest from all before it."""
    levels = np.linspace(0, 255, 9).round()
    choices = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    choices = choices[np.ptp(choices, axis=1) > 60]  # greys are hard to see on pictures
    weights = np.array([2.0, 4.0, 3.0]) ** 0.5  # about how much the eye makes of differences in red, green and blue
    distance = np.full(len(choices), np.inf)
    colours = list(FIRST.astype(float))
    for i in range(255):
        if i == len(colours):
            colours.append(choices[distance.argmax()])
        distance = np.minimum(distance, np.linalg.norm((choices - colours[i]) * weights, axis=1))
    return np.array(colours).astype(np.uint8)


# --- lines and letters -------------------------------------------------------------------------------------------


Colour = tuple[int, ...]


@dataclass(frozen=True)
class _Pen:
    """Lines and letters in proportion to a picture: `letters` high and `line` thick, in pixels."""

    letters: int
    line: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont

    @classmethod
    def of(cls, picture: Image.Image, texts: Iterable[str]) -> _Pen:
        """A pen for `picture` that can write `texts`."""
        side = max(picture.size)
        letters = max(14, round(side / 60))
        return cls(letters, max(2, round(side / 250)), _font(letters, frozenset("".join(texts))))

    @property
    def gap(self) -> int:
        return max(2, self.letters // 5)

    @property
    def height(self) -> int:
        """Of a line of text, from the top of its tallest letters to the end of those that hang down."""
        return math.ceil(self.font.getbbox("Agj|")[3])

    def width(self, text: str) -> int:
        return math.ceil(self.font.getlength(text))

    def shortened(self, text: str, width: int) -> str:
        """`text`, cut so that it is at most `width` pixels wide."""
        if self.width(text) <= width:
            return text
        while text and self.width(text + "...") > width:
            text = text[:-1]
        return text + "..." if text else ""

    def rectangle(self, canvas: ImageDraw.ImageDraw, corners: Box, colour: Colour) -> None:
        """A coloured frame with a thin one around it that sets it off from the image."""
        edge = max(1, self.line // 2)
        left, top, right, bottom = corners
        around = (left - edge, top - edge, right + edge, bottom + edge)
        canvas.rectangle(around, outline=_ink(colour), width=edge)
        canvas.rectangle(corners, outline=colour, width=self.line)

    def caption(self, canvas: ImageDraw.ImageDraw, corners: Box, colour: Colour, text: str, taken: list[Box]) -> Box:
        """Writes `text` at a box, on its colour, and returns where it stands."""
        columns, rows = canvas.im.size
        text = self.shortened(text, columns - 2 * self.gap)
        size = self.width(text) + 2 * self.gap, self.height + self.gap
        places = _places(corners, size, (columns, rows))
        place = min(places, key=lambda one: sum(_common(one, other) for other in taken))
        canvas.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=colour)
        canvas.text((place[0] + self.gap, place[1] + self.gap // 2), text, _ink(colour), self.font)
        return place

    def legend(self, entries: Sequence[tuple[str, Colour]], width: int) -> np.ndarray:
        """Names beside patches of their colours, in as many lines of `width` pixels as it takes."""
        patch, row = self.letters, self.height + 2 * self.gap
        places, x, y = [], self.gap, 0
        for name, colour in entries:
            text = self.shortened(name, width - patch - 3 * self.gap)
            needed = patch + self.gap + self.width(text)
            if x > self.gap and x + needed + self.gap > width:
                x, y = self.gap, y + row
            places.append((x, y, text, colour))
            x += needed + 4 * self.gap
        sheet = Image.new("RGB", (width, y + row), "white")
        canvas = ImageDraw.Draw(sheet)
        for x, y, text, colour in places:
            top = y + (row - patch) // 2
            canvas.rectangle((x, top, x + patch - 1, top + patch - 1), fill=colour, outline="black")
            canvas.text((x + patch + self.gap, y + self.gap), text, "black", self.font)
        return np.array(sheet)


@functools.cache
def _font(size: int, characters: frozenset[str]) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, or of the system's the first that has all, or else most, of `characters` which it lacks."""
    best = ImageFont.load_default(size)
    lacking = strange = {character for character in characters if not character.isascii()}
    for name in FONTS:
        if not lacking:
            break
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            continue
        missing = bytes(font.getmask("\uffff"))  # what it shows for characters that it lacks
        lost = {character for character in strange if bytes(font.getmask(character)) == missing}
        if len(lost) < len(lacking):
            best, lacking = font, lost
    return best


def _enlarged(image: np.ndarray) -> tuple[Image.Image, int]:
    """A copy of `image`, each pixel `factor` × `factor` of it."""
    factor = max(1, SMALL // max(image.shape[:2]))
    return Image.fromarray(np.ascontiguousarray(image.repeat(factor, 0).repeat(factor, 1))), factor


def _within(box: np.ndarray, size: tuple[int, int]) -> Box:
    """The first and last pixels of `box` in each direction, inside a picture of `size` = (width, height)."""
    limit = np.array([size[0], size[1]] * 2)
    left, top, right, bottom = np.round(np.clip(box, 0, limit)).astype(int).tolist()
    left, top = min(left, size[0] - 1), min(top, size[1] - 1)
    return left, top, max(left, right - 1), max(top, bottom - 1)


def _places(corners: Box, size: tuple[int, int], picture: tuple[int, int]) -> list[Box]:
    """Where a caption of `size` may stand at a box, best first: above it, below it, in its corners."""
    left, top, right, bottom = corners
    width, height = size
    wanted = [(x, y) for y in (top - height, bottom + 1, top, bottom + 1 - height) for x in (left, right + 1 - width)]
    places = []
    for x, y in wanted:
        inside = max(0, min(x, picture[0] - width)), max(0, min(y, picture[1] - height))
        places.append((inside[0], inside[1], inside[0] + width, inside[1] + height))
    return places


def _common(one: Box, other: Box) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)


def _ink(colour: Colour) -> str:
    """Black or white, whichever is easier to read on `colour` (its relative luminance, ITU-R BT.709)."""
    red, green, blue = ((value / 255) ** 2.2 for value in colour)
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "white"
