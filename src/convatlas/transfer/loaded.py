"""A result folder in Python: `convatlas.load(folder)`, which predicts what `convatlas predict` does."""

import struct
from collections.abc import Iterator, Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path

import torch
from PIL import Image
from PIL.ExifTags import Base
from torch import Tensor, nn

from convatlas.data.dataset import ImageSet
from convatlas.data.pictures import decode_picture, printable, quiet_pillow
from convatlas.errors import UserError, first_line
from convatlas.records.finished import result_in
from convatlas.records.run import ModelConfig, Prediction
from convatlas.training.apply import predict_pictures, probabilities, told
from convatlas.training.checkpoint import load_model
from convatlas.training.evaluate import at_once

Picture = str | PathLike[str] | Image.Image
"""A picture's file, or the picture as Pillow holds it in memory."""
_SHOWN = 5
"""So many classes does the representation name."""
_AS_PNG = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_AS_TIFF = frozenset({"I", "I;16B", "F", "CMYK", "YCbCr", "LAB"})


class Loaded:
    """A trained network with its configuration: `model` (in evaluation mode, on the CPU), `config`, `classes`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model: nn.Module
        self.config: ModelConfig
        self.model, self.config = load_model(folder)

    def __repr__(self) -> str:
        names = ", ".join(printable(name) for name in self.classes[:_SHOWN]) + (", ..." if len(self.classes) > _SHOWN else "")
        size = f"{self.config.image_size}x{self.config.image_size} pixels"
        return f"<{self.config.model} of {printable(self.folder)}: {len(self.classes)} classes ({names}), images of {size}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.config.classes

    def predict(self, images: Sequence[Picture], *, top: int = 5) -> tuple[Prediction, ...]:
        """The `top` likeliest classes of each picture with their probabilities; an unreadable one carries its error instead.

        Pictures are paths or images of Pillow, to which the rules for files are applied: transparency on white, 16 bits to 8,
        the orientation in EXIF. A large JPEG that Pillow has opened is scaled from all its pixels, which may differ by a grey
        level from how its file is read. An image without a file's name is called after its place in the list, from 0.
        """
        if isinstance(images, (str, PathLike, Image.Image)):
            raise UserError(f"images is {str(images)!r}", fix="Give a list of paths, or of images of Pillow.")
        given = list(images)
        held = [(_name_of(each, i), each) for i, each in enumerate(given) if isinstance(each, Image.Image)]
        files = [Path(each) for each in given if not isinstance(each, Image.Image)]
        of_files = iter(predict_pictures(self.folder, files, top=top) if files else ())
        of_held = self._seen(held, top)
        return tuple(next(of_held if isinstance(each, Image.Image) else of_files) for each in given)

    def _seen(self, images: Sequence[tuple[str, Image.Image]], top: int) -> Iterator[Prediction]:
        """What is seen in images that lie in memory, each with its name; as many at once as of files."""
        how = self.config
        step = at_once(max(1, len(images)), how.image_size)
        for begin in range(0, len(images), step):
            part = images[begin : begin + step]
            with quiet_pillow():
                read = [_pixels(name, image, how) for name, image in part]
            pictures = [each for each in read if isinstance(each, Tensor)]
            together = ImageSet(torch.stack(pictures), torch.zeros(len(pictures), dtype=torch.int64)) if pictures else None
            rows = iter(() if together is None else probabilities(self.model, together, how))
            for (name, _), each in zip(part, read, strict=True):
                yield told(name, each, rows, how, top=top)


def _name_of(image: Image.Image, place: int) -> str:
    """The file that Pillow opened, or the place in the list."""
    return str(getattr(image, "filename", "") or f"images[{place}]")


def _pixels(name: str, image: Image.Image, how: ModelConfig) -> Tensor | str:
    """The image as it would be read from a file, uint8 (C, size, size), or what is wrong with it."""
    try:
        return decode_picture(
            _content(image),
            size=how.resize or how.image_size,
            channels=how.in_chans,
            where=printable(name),
            crop=how.image_size,
            interpolation=how.interpolation,
        )
    except UserError as error:
        return error.what
    except (OSError, ValueError, SyntaxError, struct.error, EOFError, SystemError, KeyError, TypeError) as error:
        return f"{printable(name)} cannot be used: {first_line(error)}"


def _content(image: Image.Image) -> bytes:
    """The image as the bytes of a file that loses nothing, so that one piece of code has the rules for files."""
    image.load()  # which turns a TIFF upright by itself
    try:
        turned = image.getexif().get(Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, struct.error, KeyError, TypeError):
        turned = 1  # as with files
    exif = Image.Exif()
    if turned in range(2, 9):
        exif[Base.Orientation] = turned
    if image.mode not in _AS_PNG | _AS_TIFF:
        image = image.convert("LA" if image.mode == "La" else "RGBA" if image.has_transparency_data else "RGB")
    file = BytesIO()
    if image.mode in _AS_PNG:
        image.save(file, "PNG", exif=exif, compress_level=0)  # it is read again at once
    else:
        image.save(file, "TIFF", exif=exif, compression="raw")
    return file.getvalue()


def load(folder: str | PathLike[str]) -> Loaded:
    """The network in a result folder, of `convatlas finetune` (of a tournament its winner) or `convatlas train`.

    Raises UserError for a folder that is not there or holds none, whose checksums are not those in its manifest, or whose
    configuration does not fit its weights.
    """
    return Loaded(result_in(Path(folder)))
