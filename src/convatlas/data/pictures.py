"""One picture file to a uint8 tensor, by written rules, whatever the file turns out to hold.

The rules: transparency is composited on white; CMYK and other colour spaces become RGB by Pillow's formulas; 16-bit grey is
scaled to 8 bits; of an animation the first frame counts; the EXIF orientation is applied (an unreadable EXIF block counts
as none). The shorter side is brought to the size asked for, with antialiasing, and the middle square cut out, by the rounding of
torchvision and timm, so that published weights get the pixels they know. A JPEG much larger than that is decoded at a half, a
quarter or an eighth of its extent, the smallest whose sides are both at least twice the size asked for (libjpeg then averages
pixels while decoding, which is several times as fast and moves a pixel by about one grey level); without a size all pixels are
decoded. Floating-point pixels are refused.
"""

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from stat import S_ISREG

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from convatlas.errors import UserError

RULES = 3
"""Counts the changes of these rules: pixels decoded by other rules are not taken for those of today's."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MAX_PIXELS = 40_000_000
_MAX_FILE_BYTES = 256_000_000
INTERPOLATIONS = ("bicubic", "bilinear")
_LONGEST = 4
"""Pictures up to so many times as long as wide are scaled whole: of others the middle alone, which is equal but for rounding."""
_GREY_16 = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})
_FIX = "Replace or remove it, or leave such pictures out with --skip-unreadable."


def printable(path: Path | str) -> str:
    """A path for a one-line message: newlines, writing-direction marks and bytes that are no text are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(path))


def read_picture(
    path: Path, *, size: int | None, channels: int, crop: int | None = None, interpolation: str = "bicubic"
) -> Tensor:
    """The picture in the regular file `path` as uint8 (channels, H, W); its middle square at `size` pixels (None: all, as it is).

    `channels` is 1 for grey, 3 for RGB. `crop` and `interpolation` as for `decode_picture`. Raises UserError that names the file.
    """
    with quiet_pillow():
        content, where = file_content(path), printable(path)
        return decode_picture(content, size=size, channels=channels, where=where, crop=crop, interpolation=interpolation)


def file_content(path: Path) -> bytes:
    """All bytes of the regular file `path`; raises UserError for anything else (a pipe would wait for ever)."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise UserError(f"{printable(path)} is no regular file", fix=_FIX)
        if status.st_size > _MAX_FILE_BYTES:
            raise UserError(f"{printable(path)} has {status.st_size:,} bytes, too many for a picture", fix=_FIX)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read: {error.strerror}", fix=_FIX) from None


def decode_picture(
    content: bytes,
    *,
    size: int | None,
    channels: int,
    where: str,
    crop: int | None = None,
    interpolation: str = "bicubic",
) -> Tensor:
    """`content`, the bytes of a picture file, as `read_picture` gives it. `where` names the file. Call within `quiet_pillow`.

    `crop`: the square lies so that its middle `crop` pixels a side (None: all) are those that torchvision and timm cut out, which
    may be half a pixel off the middle. `interpolation` is "bicubic" or "bilinear".
    """
    if not content:
        raise UserError(f"{where} is empty (0 bytes)", fix=_FIX)
    _check_complete(content, where)
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{where} has {image.width}x{image.height} pixels, more than {MAX_PIXELS:,}", fix=_FIX)
            extent = image.size
            if size is not None:
                # Does nothing but for JPEG.
                image.draft(None, (2 * size, 2 * size))
            image.load()
            upright = _upright(image)
            extent = extent if upright.size == image.size else extent[::-1]
            plain = _in_colours(upright, channels, where)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{where} has more than {MAX_PIXELS:,} pixels", fix=_FIX) from None
    except UnidentifiedImageError:
        raise UserError(f"{where} is no picture in {', '.join(FORMATS)}", fix=_FIX) from None
    except (OSError, ValueError, SyntaxError, struct.error, EOFError, KeyError, IndexError, TypeError, zlib.error) as error:
        raise UserError(f"{where} is damaged: {printable(str(error)) or type(error).__name__}", fix=_FIX) from None
    if size is not None:
        plain = _middle_square(plain, size, crop or size, Image.Resampling[interpolation.upper()], extent)
    pixels = np.asarray(plain, dtype=np.uint8).reshape(plain.height, plain.width, channels)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keeps Pillow's warnings (odd EXIF, large pictures) off the screen; what matters ends as a UserError.

    Warning filters belong to the whole process: enter it once around a pool of threads, not in each.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except (OSError, ValueError, SyntaxError, struct.error, KeyError, TypeError):
        return image


def _in_colours(image: Image.Image, channels: int, where: str) -> Image.Image:
    """The image in mode L or RGB, by the rules at the head of this file."""
    wanted = "L" if channels == 1 else "RGB"
    if image.mode == "F":
        raise UserError(f"{where} has floating-point pixels, whose white nobody knows", fix="Convert it to 8 bits a channel.")
    if image.mode in _GREY_16:
        image = _from_16_bits(image, where)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == wanted else image.convert(wanted)


def _from_16_bits(image: Image.Image, where: str) -> Image.Image:
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise UserError(f"{where} has grey levels outside 0..65535", fix="Convert it to 8 bits a channel.")
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _middle_square(image: Image.Image, size: int, crop: int, filtered: Image.Resampling, extent: tuple[int, int]) -> Image.Image:
    """The shorter side scaled to `size`, and the square of that size cut out whose middle `crop` pixels are torchvision's.

    `extent` is that of the picture in its file, of which fewer pixels may have been decoded.

    For a long picture the square is named as the source: otherwise 1 x 5000 pixels would grow without bound on the way.
    """
    scaled = tuple(int(size * side / min(extent)) for side in extent)
    left, top = (round((side - crop) / 2) - round((size - crop) / 2) for side in scaled)
    if max(scaled) <= _LONGEST * size:
        return image.resize((scaled[0], scaled[1]), filtered).crop((left, top, left + size, top + size))
    across, down = (before / after for before, after in zip(image.size, scaled, strict=True))
    return image.resize((size, size), filtered, box=(left * across, top * down, (left + size) * across, (top + size) * down))


def _check_complete(content: bytes, where: str) -> None:
    """Pillow reads a PNG or JPEG that lacks its last bytes without complaint; the format's end mark tells."""
    checks: dict[bytes, Callable[[bytes], str | None]] = {b"\x89PNG\r\n\x1a\n": _png_fault, b"\xff\xd8\xff": _jpeg_fault}
    for signature, fault_of in checks.items():
        fault = fault_of(content) if content.startswith(signature) else None
        if fault is not None:
            raise UserError(f"{where} is damaged: {fault}", fix=_FIX)


def _png_fault(content: bytes) -> str | None:
    """Walks the chunks (length, type, data, CRC) up to IEND."""
    position = 8
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        end = position + 12 + length
        if end > len(content):
            break
        body = content[position + 4 : end - 4]
        if zlib.crc32(body) != int.from_bytes(content[end - 4 : end], "big"):
            return f"the checksum of its part {body[:4]!r} is wrong"
        if body[:4] == b"IEND":
            return None
        position = end
    return "it is cut short (a PNG without its end)"


def _jpeg_fault(content: bytes) -> str | None:
    """Walks the segments up to the first scan, past thumbnails that have end marks of their own; an end mark must follow."""
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xDA:
            return None if content.find(b"\xff\xd9", position) >= 0 else "it is cut short (a JPEG without its end)"
        # A fill byte or a marker that stands alone has no length.
        alone = marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8
        position += (1 if marker == 0xFF else 2) if alone else 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return "it is cut short (a JPEG without its pixels)"
