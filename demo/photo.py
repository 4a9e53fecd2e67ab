"""A picture with the size and the weight of a photograph: 4000×3000 pixels, some megabytes of JPEG.

A sky with a sun, ridges fading into the haze, a field, and the noise of a sensor over it all; the same seed gives the
same picture.
"""

from __future__ import annotations

import io
import math
import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

WIDTH, HEIGHT = 4000, 3000
HORIZON = 1900
RIDGES = 5
NOISE = 0.12
QUALITY = 92
SEED = 3233
EDGE = 180
"""The value of a radial gradient in the middle of its sides: there a glow must have ended."""


def take() -> bytes:
    """The picture as JPEG."""
    dice = random.Random(SEED)
    picture = _blend((120, 165, 215), (245, 205, 160))
    _add_sun(picture)
    for number in range(RIDGES):
        _add_ridge(picture, dice, number / (RIDGES - 1))
    grain = Image.merge("RGB", [_grain(dice) for _ in range(3)])
    picture = Image.blend(picture, ImageChops.overlay(picture, grain), NOISE * 4)
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=QUALITY)
    return packed.getvalue()


def _blend(top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image.Image:
    mask = Image.linear_gradient("L").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return Image.composite(Image.new("RGB", mask.size, bottom), Image.new("RGB", mask.size, top), mask)


def _add_sun(picture: Image.Image) -> None:
    size = 1600
    distance = Image.radial_gradient("L").resize((size, size), Image.Resampling.BICUBIC)
    glow = distance.point([max(0, 255 - step * 255 // EDGE) for step in range(256)])
    picture.paste((255, 244, 214), (2500 - size // 2, 1000 - size // 2), glow)


def _add_ridge(picture: Image.Image, dice: random.Random, nearness: float) -> None:
    """One line of hills, darker and greener the nearer it is."""
    base = HORIZON - 250 + round(nearness * 900)
    waves = [(dice.uniform(40, 130) / (n + 1), dice.uniform(1, 3) * (n + 1), dice.uniform(0, 6.3)) for n in range(7)]
    line = [
        (x, base - sum(height * math.sin(turns * x / WIDTH * math.tau + phase) for height, turns, phase in waves))
        for x in range(0, WIDTH + 1, 8)
    ]
    haze = 1 - nearness
    colour = (round(40 + 130 * haze), round(70 + 90 * haze), round(45 + 130 * haze))
    ImageDraw.Draw(picture).polygon([*line, (WIDTH, HEIGHT), (0, HEIGHT)], fill=colour)


def _grain(dice: random.Random) -> Image.Image:
    """Noise of two sizes, as a sensor and a lens leave it."""
    fine = Image.frombytes("L", (WIDTH, HEIGHT), dice.randbytes(WIDTH * HEIGHT))
    coarse = Image.frombytes("L", (WIDTH // 8, HEIGHT // 8), dice.randbytes(WIDTH * HEIGHT // 64))
    coarse = coarse.filter(ImageFilter.GaussianBlur(2)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return Image.blend(fine, coarse, 0.5)
