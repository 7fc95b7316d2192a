"""`convatlas data preview`: what an augmentation policy makes of images, on one sheet, before anything is trained on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from convatlas.cli import options as o
from convatlas.cli.console import counted, say, tell, tell_json
from convatlas.data.catalog import CATALOG
from convatlas.data.policy_names import POLICIES
from convatlas.errors import UserError, unknown_name
from convatlas.records import storage
from convatlas.records.preview import Copy, Preview, Previewed

if TYPE_CHECKING:
    from torch import Tensor

    from convatlas.data.dataset import DataSet
    from convatlas.data.policy_samples import Sample

MOST_PIXELS = 40_000_000
"""Of a whole sheet: more are no picture that a viewer opens."""
LEAST_CELL = 224
"""Pixels: smaller images are enlarged to it on a sheet, so that words fit below them."""
SEEN = 0.005
"""A class with a smaller share is not named."""

Policy = Annotated[
    str, typer.Option("--policy", "--augment", help="; ".join(f"{name}: {what}" for name, what in POLICIES.items()) + ".")
]


def preview(
    source: Annotated[str, typer.Argument(help="A data set of `convatlas data`, a folder of pictures, or a .csv list.")],
    data_root: o.DataRoot = None,
    policy: Policy = "light",
    image_size: Annotated[int, typer.Option("--image-size", help="Pixels a side, as a network sees it.")] = 224,
    flip: o.Flip = None,
    mixup: o.MixUp = 0.0,
    cutmix: o.CutMix = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Which images, and what chance decides.")] = 0,
    rows: Annotated[int, typer.Option("--rows", help="Images.")] = 6,
    columns: Annotated[int, typer.Option("--columns", help="The middle of each, and so many copies less one.")] = 8,
    no_verify: o.NoVerify = False,
    skip_unreadable: o.SkipUnreadable = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New file: .png, or .html with captions to read.")] = None,
    as_json: o.Json = False,
) -> None:
    """What an augmentation policy makes of some training images: a contact sheet, to be judged by eye."""
    file = out or o.fresh_folder(f"preview-{policy}").with_suffix(".png")
    _check(file, policy=policy, image_size=image_size, rows=rows, columns=columns, seed=seed)
    name, root = named_data(source, data_root)
    chosen = o.DataOptions(name, root, _loaded_size(name, image_size), 0.1, not no_verify, skip_unreadable)
    from convatlas.cli.working import load
    from convatlas.data.policy_samples import samples
    from convatlas.training.recipes import NOT_MIRRORED

    data = load(chosen)
    settings: dict[str, Any] = {"policy": policy, "mixup": mixup, "cutmix": cutmix, "seed": seed}
    settings["flip"] = name not in NOT_MIRRORED if flip is None else flip
    made = samples(
        data.train, rows=rows, copies=columns - 1, size=image_size, num_classes=data.num_classes, **settings
    )  # fmt: skip
    images = tuple(_previewed(data, sample) for sample in made)
    record = Preview(source, data.description, what=POLICIES[policy], image_size=image_size, images=images, **settings)
    _write(file, record, made)
    if as_json:
        tell_json(record)
        return
    tell(f"{policy}: {POLICIES[policy]}; {counted(rows, 'image')}, {columns - 1} {'copy' if columns == 2 else 'copies'} each")
    tell(f"written: {file}")


class DataCommand(TyperCommand):
    """`convatlas data`, which leaves `convatlas data preview ...` to a command of its own."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """What was said after `data`: of the data sets, or of the preview."""
        if args[:1] == ["preview"]:
            return PREVIEW.make_context(f"{info_name} preview", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)


_app = typer.Typer(add_completion=False)
_app.command("preview")(preview)
PREVIEW = typer.main.get_command(_app)


def _check(file: Path, *, policy: str, image_size: int, rows: int, columns: int, seed: int) -> None:
    """Raise UserError for what cannot be, before anything is read."""
    o.check_new(file)
    if file.suffix.lower() not in (".png", ".html"):
        raise UserError(f"--out is {file}, and what is written is a picture or a page", fix="Let its name end in .png or .html.")
    if file.parent != Path("runs") and not file.absolute().parent.is_dir():
        raise UserError(f"there is no folder {file.parent}", fix="Make it first, or name another with --out.")
    if policy not in POLICIES:
        raise unknown_name("augmentation policy", policy, POLICIES, where=f"Choose from {', '.join(POLICIES)}.")
    for option, value, least in (
        ("--rows", rows, 1),
        ("--columns", columns, 2),
        ("--image-size", image_size, 1),
        ("--seed", seed, 0),
    ):
        if value < least:
            raise UserError(f"{option} is {value}", fix=f"Choose {least} or more.")
    if rows * columns * max(image_size, LEAST_CELL) ** 2 > MOST_PIXELS:
        raise UserError(f"{rows} rows of {columns} images are more than a sheet holds", fix="Choose fewer, or a smaller size.")


def named_data(source: str, data_root: Path | None) -> tuple[str, Path | None]:
    """The data set's name in the catalogue, and where it lies. A path stands for the folder or list that it is."""
    if source in CATALOG:
        if data_root is None and Path(source).is_dir():
            say(f"note: {source} is the set of that name; for the folder here give ./{source}")
        return source, data_root
    if not source.strip() or not Path(source).exists():
        where = "`convatlas data` lists them; a folder of pictures or a .csv list is named by its path."
        raise unknown_name("data set", source, CATALOG, where=where)
    if data_root is not None:
        raise UserError(f"{source} is a place already", fix="Leave --data-root out.")
    is_list = Path(source).suffix.lower() == ".csv" and not Path(source).is_dir()
    return "csv" if is_list else "folder", Path(source)


def _loaded_size(name: str, image_size: int) -> int | None:
    """At how many pixels the data are read: photographs somewhat larger than what is shown, published sets as they are."""
    if CATALOG[name].kind != "your own":
        return None
    from convatlas.data.policies import stored_side

    return stored_side(image_size)


def _previewed(data: "DataSet", sample: "Sample") -> Previewed:
    copies = (
        Copy(drawn, {data.classes[i]: round(share, 4) for i, share in enumerate(shares) if share >= SEEN})
        for drawn, shares in zip(sample.drawn, sample.shares.tolist(), strict=True)
    )
    file = None if data.split is None else data.split["train"][sample.index]
    return Previewed(sample.index, data.classes[sample.label], file, tuple(copies))


def _write(file: Path, record: Preview, made: "list[Sample]") -> None:
    """The page, or the sheet: one image a row, its class below its middle, and below each copy what was done."""
    from convatlas.inspection.rendering import captioned, png, png_url, sheet

    pictures = [[_in_colour(picture) for picture in (sample.original, *sample.copies)] for sample in made]
    file.parent.mkdir(exist_ok=True)
    if file.suffix.lower() == ".html":
        from convatlas.report.preview import preview_page

        storage.write_text(file, preview_page(record, [[png_url(picture) for picture in row] for row in pictures]))
        return
    cells = []
    for row, image in zip(pictures, record.images, strict=True):
        said = [f"{copy.mixture}: {copy.drawn}" if copy.mixture else copy.drawn for copy in image.copies]
        cells += [captioned(picture, text) for picture, text in zip(row, [image.label, *said], strict=True)]
    storage.write_bytes(file, png(sheet(_of_one_height(cells), columns=len(pictures[0]))))


def _of_one_height(cells: "list[Tensor]") -> "list[Tensor]":
    """The cells (3, H, W) with white below the shorter ones."""
    import torch.nn.functional as F

    highest = max(cell.shape[1] for cell in cells)
    return [F.pad(cell, (0, 0, 0, highest - cell.shape[1]), value=255) for cell in cells]


def _in_colour(picture: "Tensor") -> "Tensor":
    """A picture (3, H, W), also of grey."""
    return picture.expand(3, -1, -1)
