"""Numbers as pictures: colours for maps, maps over images, words below them, PNG files in a line of text.

Pictures are uint8, (3, H, W) in colour or (H, W) in grey. The colours of a map run from dark blue over teal to light yellow, each
step about equally much lighter than the one before, so that they are read in grey and by colour-blind people too.
"""

import base64
from io import BytesIO

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLOURS = torch.tensor(
    [
        (16, 20, 48),
        (32, 48, 92),
        (36, 82, 122),
        (32, 116, 134),
        (48, 148, 132),
        (98, 176, 116),
        (164, 198, 102),
        (226, 218, 120),
        (252, 246, 200),
    ],
    dtype=torch.float32,
)
"""From nothing to all."""
STRIP = 4
"""Pixels around the words below a picture."""
MARGIN = 2


def png_url(picture: Tensor) -> str:
    """A picture as a PNG data URL."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode("ascii")


def png(picture: Tensor) -> bytes:
    """A picture as the content of a PNG file."""
    file = BytesIO()
    _image(picture).save(file, "PNG", optimize=True)
    return file.getvalue()


def scaled(values: Tensor, *, low: float | None = None, high: float | None = None) -> Tensor:
    """Values as shares in [0, 1] between `low` and `high`, their own ends unless given; all 0 where there is no difference."""
    values = torch.nan_to_num(values.detach().float().cpu(), nan=0.0)
    least = float(values.min()) if low is None else low
    most = float(values.max()) if high is None else high
    return ((values - least) / (most - least)).clamp(0, 1) if most > least else torch.zeros_like(values)


def coloured(values: Tensor, *, low: float | None = None, high: float | None = None) -> Tensor:
    """A map (H, W) of any numbers in colours: (3, H, W)."""
    places = scaled(values, low=low, high=high) * (len(COLOURS) - 1)
    below = places.floor().long().clamp(max=len(COLOURS) - 2)
    share = (places - below)[..., None]
    return (COLOURS[below] * (1 - share) + COLOURS[below + 1] * share).round().to(torch.uint8).permute(2, 0, 1)


def overlay(picture: Tensor, values: Tensor, *, low: float | None = None, high: float | None = None) -> Tensor:
    """A map (h, w) in colours over a picture (3, H, W) in grey: the larger a value, the more of its colour."""
    height, width = picture.shape[-2:]
    grey = picture.float().mean(0, keepdim=True).expand(3, -1, -1)
    share = torch.nn.functional.interpolate(
        scaled(values, low=low, high=high)[None, None], (height, width), mode="bilinear", align_corners=False
    )[0]
    colours = coloured(share[0], low=0.0, high=1.0).float()
    weight = 0.15 + 0.65 * share
    return (grey * (1 - weight) + colours * weight).round().clamp(0, 255).to(torch.uint8)


def enlarged(picture: Tensor, side: int) -> Tensor:
    """A picture whose larger side is at least `side` pixels, each of its pixels a square of whole pixels."""
    times = -(-side // max(picture.shape[-2:]))
    return picture.repeat_interleave(times, -1).repeat_interleave(times, -2)


def sheet(pictures: list[Tensor], *, columns: int) -> Tensor:
    """Pictures (3, H, W) of one size on a grid, row by row, a little apart: in about `columns`, so that the last row is full."""
    nearby = sorted(range(max(1, columns - 2), columns + 3), key=lambda count: (-len(pictures) % count, abs(count - columns)))
    columns = nearby[0]
    height, width = pictures[0].shape[-2:]
    rows = -(-len(pictures) // columns)
    size = (3, rows * (height + MARGIN) + MARGIN, min(columns, len(pictures)) * (width + MARGIN) + MARGIN)
    found = torch.full(size, 128, dtype=torch.uint8)
    for i, picture in enumerate(pictures):
        top, left = MARGIN + i // columns * (height + MARGIN), MARGIN + i % columns * (width + MARGIN)
        found[:, top : top + height, left : left + width] = picture
    return found


def captioned(picture: Tensor, text: str) -> Tensor:
    """A picture (3, H, W) with words on a strip below it, in as many lines as its width asks for."""
    picture = enlarged(picture, 224) if max(picture.shape[-2:]) < 224 else picture
    font = ImageFont.load_default(size=13)
    lines = _wrapped(text, font, picture.shape[-1] - 2 * STRIP)
    line_height = 17
    strip = Image.new("RGB", (picture.shape[-1], line_height * len(lines) + 2 * STRIP), "white")
    draw = ImageDraw.Draw(strip)
    for i, line in enumerate(lines):
        draw.text((STRIP, STRIP + i * line_height), line, fill=(34, 37, 43), font=font)
    words = torch.frombuffer(bytearray(strip.tobytes()), dtype=torch.uint8).view(strip.height, strip.width, 3)
    return torch.cat([picture.cpu(), words.permute(2, 0, 1)], dim=1)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _image(picture: Tensor) -> Image.Image:
    if picture.dim() == 2:
        return Image.fromarray(picture.cpu().contiguous().numpy())
    return Image.fromarray(picture.cpu().permute(1, 2, 0).contiguous().numpy())
