"""`convatlas look`: what happens inside a network when pictures pass through it."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convatlas.cli.console import say, tell, tell_json
from convatlas.cli.options import Json, check_new, fresh_folder
from convatlas.errors import UserError, unknown_name
from convatlas.records import codec, storage
from convatlas.records.gradients import FILE, read_flows
from convatlas.records.weights import Preprocessing
from convatlas.report.look import busy, look_page

if TYPE_CHECKING:
    from torch import Tensor, nn

    from convatlas.records.attribution import Attribution
    from convatlas.records.look import Look
    from convatlas.records.run import Prediction

SEEDS = (0, 1)
"""Of the random weights that attributions are held against: each costs every map twice more."""
PARTS = ("maps", "filters", "activations", "field", "attributions", "gradients")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Means and deviations of ImageNet's colours, by which pictures are normalised for a network that has no weights of its own."""

Images = Annotated[list[Path], typer.Argument(help="Pictures.")]
Only = Annotated[str | None, typer.Option("--only", help=f"Some of {','.join(PARTS)}.")]
Pretrained = Annotated[
    str | None, typer.Option("--pretrained", help="Weights: default, torchvision, timm, another source, or a file.")
]


@dataclass(frozen=True, eq=False)
class Subject:
    """The network that is looked into, and how pictures are made ready for it. `classes` is empty where no names are known."""

    name: str
    model: "nn.Module"
    weights: str
    trained: bool
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    folder: Path | None = None


def look(
    name: Annotated[str, typer.Argument(help="A model of `convatlas list --all`, a run folder, or path/to/file.py:make_model.")],
    images: Images,
    pretrained: Pretrained = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", help="Layers to look at (default: the stages). Repeatable.")
    ] = None,
    only: Only = None,
    image_size: Annotated[int | None, typer.Option("--image-size", help="Pixels a side (default: as the weights want).")] = None,
    target: Annotated[
        int | None, typer.Option("--target", help="Class index that maps speak for (default: the likeliest).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New folder for page, pictures and records.")] = None,
    as_json: Json = False,
) -> None:
    """Feature maps, filters, activity, effective receptive fields, and what an answer rests on, as one page."""
    check_new(out)
    parts = _parts(only)
    _check_used(parts, layer or [], target)
    subject = _subject(name, pretrained, image_size)
    kept = "gradients" in parts and subject.folder is not None and (subject.folder / FILE).exists()
    if only is not None and "gradients" in parts and not kept:
        raise UserError(f"{name} kept no gradients", fix="Train a run with --gradients, or leave the part gradients out.")
    record = _looked(subject, images, parts=parts, layers=layer or [], target=target)
    folder = out or fresh_folder("look")
    _write(record, folder, look_page(record, run=read_flows(subject.folder) if kept and subject.folder is not None else None))
    if as_json:
        tell_json(record)
        return
    for each in record.images:
        said = zip(each.prediction.classes[:3], each.prediction.probabilities, strict=False)
        tell(f"{each.image}: " + ", ".join(f"{label} {share:.1%}" for label, share in said))
        for one in each.attributions:
            tell(f"  {one.method}: {one.note}")
    if record.activities:
        tell(busy(record).sentence)
    for note in record.notes:
        say(f"note: {note}")
    tell(f"written: {folder / 'look.html'}")


def _parts(only: str | None) -> tuple[str, ...]:
    parts = PARTS if only is None else tuple(part.strip() for part in only.split(","))
    for part in parts:
        if part not in PARTS:
            raise unknown_name("part", part, PARTS, where=f"Choose from {', '.join(PARTS)}.")
    return parts


def _check_used(parts: tuple[str, ...], layers: list[str], target: int | None) -> None:
    """Raises UserError for an option that none of the parts would look at."""
    if layers and not {"maps", "field"} & set(parts):
        raise UserError("--layer is for maps and field, which --only leaves out", fix="Leave --layer out, or add one of them.")
    if target is not None and "attributions" not in parts:
        raise UserError("--target is for attributions, which --only leaves out", fix="Leave --target out, or add them.")


# The network


def _subject(name: str, pretrained: str | None, image_size: int | None) -> Subject:
    from convatlas.models.user_files import is_user_file, model_from_file

    if (Path(name) / "recipe.json").exists() or Path(name).is_dir():
        if pretrained is not None or image_size is not None:
            raise UserError("a run has its own weights and image size", fix="Leave --pretrained and --image-size out.")
        return _run(Path(name))
    if is_user_file(name):
        size = 224 if image_size is None else image_size
        how = Preprocessing(*IMAGENET, size, size, "bicubic")
        return Subject(name, model_from_file(name), "weights as the file makes them", True, how, ())
    return _variant(name, pretrained, image_size)


def _run(folder: Path) -> Subject:
    from convatlas.training.checkpoint import load_model

    model, config = load_model(folder)
    what = f"{config.model} as trained in {folder.name or folder}"
    return Subject(config.model, model, what, True, config.preprocessing, config.classes, folder)


def _variant(name: str, pretrained: str | None, image_size: int | None) -> Subject:
    import torch

    from convatlas.models.registry import create_model, find_variant

    variant = find_variant(name)
    size = variant.image_size if image_size is None else image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        source = False if pretrained is None else True if pretrained == "default" else pretrained
        model = create_model(name, pretrained=source, in_chans=variant.in_chans, image_size=size if source is False else None)
    if model.loaded is None:
        mean, std = IMAGENET if variant.in_chans == 3 else ((0.5,), (0.5,))
        return Subject(
            name, model, f"{name} with random weights, seed 0", False, Preprocessing(mean, std, size, size, "bicubic"), ()
        )
    how = model.loaded.preprocessing or Preprocessing(*IMAGENET, size, size, "bicubic")
    if image_size is not None:
        how = Preprocessing(how.mean, how.std, image_size, image_size, how.interpolation)
    return Subject(name, model, f"{name} with the weights {model.loaded.source}", True, how, ())


# Looking


def _looked(subject: Subject, images: list[Path], *, parts: tuple[str, ...], layers: list[str], target: int | None) -> "Look":
    import torch

    from convatlas.cli.progress import loading_bar
    from convatlas.data.preprocessing import preprocess
    from convatlas.inspection.activations import activations
    from convatlas.inspection.effective_field import effective_fields
    from convatlas.inspection.feature_maps import feature_maps, maps_record
    from convatlas.inspection.filters import first_filters
    from convatlas.inspection.rendering import png_url
    from convatlas.records.look import Look, LookedAt

    notes: list[str] = []
    with loading_bar() as progress:
        batch = torch.stack([preprocess(path, subject.preprocessing) for path in images])
        seen = _seen(batch, subject.preprocessing)
        progress("looking", 1, len(parts) + 1)
        predictions = _predictions(subject, batch, images)
        maps = feature_maps(subject.model, batch, layers=layers) if "maps" in parts else []
        progress("looking", 2, len(parts) + 1)
        filters = first_filters(subject.model) if "filters" in parts else None
        busy_layers = activations(subject.model, batch) if "activations" in parts else ()
        progress("looking", 3, len(parts) + 1)
        fields = effective_fields(subject.model, batch, layers=layers) if "field" in parts else ()
        progress("looking", 4, len(parts) + 1)
        found = _attributed(subject, batch, seen, images, target, notes, progress) if "attributions" in parts else {}
    return Look(
        model=subject.name,
        weights=subject.weights,
        trained=subject.trained,
        input_shape=(batch.shape[1], batch.shape[2], batch.shape[3]),
        images=tuple(
            LookedAt(
                path.name,
                png_url(picture),
                prediction,
                tuple(maps_record(each, i) for each in maps),
                tuple(found.get(i, ())),
            )
            for i, (path, picture, prediction) in enumerate(zip(images, seen, predictions, strict=True))
        ),
        filters=filters,
        activities=busy_layers,
        fields=fields,
        notes=tuple(notes),
    )


def _seen(batch: "Tensor", how: Preprocessing) -> "Tensor":
    """What the network sees as pictures again: uint8 (N, 3, H, W)."""
    import torch

    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (how.mean, how.std))
    return (255 * (batch * std + mean)).round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)


def _predictions(subject: Subject, batch: "Tensor", images: list[Path]) -> list["Prediction"]:
    import torch

    from convatlas.inspection.running import at_rest, check_runs, run
    from convatlas.records.run import Prediction

    device = check_runs(subject.model, batch)
    with torch.no_grad(), at_rest(subject.model):
        logits = run(subject.model, batch.to(device))
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
        raise UserError(f"{subject.name} gives no logits (images, classes)", fix="`look` is for classifiers.")
    if not bool(logits.isfinite().all()):
        raise UserError(f"{subject.name} gives logits that are no numbers", fix="Its weights, or the training, went wrong.")
    best = logits.float().softmax(1).cpu().topk(min(5, logits.shape[1]))
    return [
        Prediction(path.name, tuple(_label(subject, i) for i in indices), tuple(shares))
        for path, indices, shares in zip(images, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _label(subject: Subject, index: int) -> str:
    return subject.classes[index] if subject.classes else f"class {index}"


def _attributed(
    subject: Subject,
    batch: "Tensor",
    seen: "Tensor",
    images: list[Path],
    target: int | None,
    notes: list[str],
    progress: Callable[[str, int, int], None],
) -> dict[int, list["Attribution"]]:
    """The maps of each image by its place; none, with a note, without captum."""
    from convatlas.inspection.attribution import attribute

    names = [f"{i} {path.name}" for i, path in enumerate(images)]
    try:
        records = attribute(
            subject.model,
            batch,
            pictures=seen,
            names=names,
            trained=subject.trained,
            target=target,
            seeds=SEEDS,
            tick=lambda share: progress("attributions", round(100 * share), 100),
        )
    except UserError as error:
        if "captum" not in str(error):
            raise
        notes.append(str(error))
        return {}
    places = {name: i for i, name in enumerate(names)}
    found: dict[int, list[Attribution]] = {}
    for each in records:
        found.setdefault(places[each.image], []).append(each)
    return found


# Writing


def _write(record: "Look", folder: Path, page: str) -> None:
    """The page, the record, and each picture as a file of its own."""
    storage.new_folder(folder)
    storage.write_text(folder / "look.html", page)
    storage.write_text(folder / "look.json", codec.to_text(record))
    for i, each in enumerate(record.images):
        stem = f"{i:02}"
        _write_png(folder / f"{stem}-image.png", each.picture)
        for maps in each.maps:
            _write_png(folder / f"{stem}-maps-{maps.layer}.png", maps.picture)
        for one in each.attributions:
            _write_png(folder / f"{stem}-{one.method.replace(' ', '-')}.png", one.picture)
    if record.filters is not None:
        _write_png(folder / "filters.png", record.filters.picture)
    for field in record.fields:
        _write_png(folder / f"field-{field.layer}.png", field.picture)


def _write_png(path: Path, url: str) -> None:
    storage.write_bytes(path, base64.b64decode(url.partition(",")[2]))
