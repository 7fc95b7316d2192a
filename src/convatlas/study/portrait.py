"""What a run's network makes of a few images, kept for the study's report: `look.json` in the run folder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.data.augment import normalise
from convatlas.data.dataset import DataSet, ImageSet
from convatlas.errors import UserError
from convatlas.inspection.feature_maps import LayerMaps, default_layers, feature_maps, maps_record
from convatlas.inspection.filters import first_filters
from convatlas.inspection.rendering import png_url
from convatlas.inspection.running import at_rest, run
from convatlas.records import codec, storage
from convatlas.records.look import Filters, Look, LookedAt, Maps
from convatlas.records.run import Prediction
from convatlas.records.study_folder import LOOK
from convatlas.training.checkpoint import load_model

MOST_BYTES = 600_000
"""A report has the looks of all variants within it."""
CHANNELS = 12
"""Maps on a sheet."""
SIDE = 32
"""Pixels a side to which larger maps are averaged."""
PICTURE = 64
"""Pixels a side to which larger images are averaged."""
LAYERS = 5
"""Stages that are looked at, besides the stem."""
ANSWERS = 5


def write_portrait(run_folder: Path, data: DataSet, *, images: int = 4) -> Look:
    """Look into the finished run's network, write `look.json` and return what stands in it: the stem's and the stages' maps.

    The images are those of `portrait_images`, the same for every run on the same data; fewer, and a note, where the file would
    exceed 600 kB. Raises UserError for a run without a model.
    """
    model, config = load_model(run_folder)
    what = f"{config.model} as trained in {run_folder.name}"
    for count in range(images, 0, -1):
        look = _looked(model, data, name=config.model, weights=what, count=count, wanted=images)
        text = codec.to_line(look)
        if len(text.encode("utf-8")) <= MOST_BYTES:
            break
    storage.write_text(run_folder / LOOK, text)
    return look


def portrait_images(data: DataSet, *, count: int) -> tuple[ImageSet, tuple[str, ...]]:
    """`count` images with their names: the first of each class in the order in which classes appear, then the second of each.

    They are of the validation split, or of the training split where there is none; the test split stays sealed.
    """
    split, images = ("validation", data.val) if len(data.val) else ("training", data.train)
    labels = images.labels.tolist()
    seen: dict[int, int] = {}
    ranks = []
    for label in labels:
        ranks.append(seen.get(label, 0))
        seen[label] = ranks[-1] + 1
    chosen = sorted(range(len(labels)), key=lambda index: (ranks[index], index))[:count]
    names = tuple(f"{split} image {index}, {data.classes[labels[index]]}" for index in chosen)
    return images.subset(chosen), names


def _looked(model: nn.Module, data: DataSet, *, name: str, weights: str, count: int, wanted: int) -> Look:
    chosen, names = portrait_images(data, count=count)
    batch = normalise(
        chosen.images, mean=data.mean, std=data.std, dtype=torch.float32, memory_format=torch.contiguous_format
    )  # fmt: skip
    notes = [] if count == wanted else [f"{count} of {wanted} images, so that the file stays small"]
    try:
        found = [_small(each) for each in feature_maps(model, batch, layers=_layers(model, batch))]
    except UserError as error:
        found = []
        notes.append(f"no feature maps: {error.what}")
    if broken := [each.layer for each, _ in found if not bool(each.maps.isfinite().all())]:
        found = []
        notes.append(f"no feature maps: those of {broken[0]} are no numbers")
    predictions = _predictions(model, batch, names=names, classes=data.classes)
    pictures = [png_url(_picture(image)) for image in chosen.images]
    seen = tuple(
        LookedAt(names[i], pictures[i], predictions[i], tuple(_record(each, i) for each in found), ()) for i in range(len(names))
    )
    shape = (batch.shape[1], batch.shape[2], batch.shape[3])
    return Look(name, weights, True, shape, seen, _filters(model), (), (), tuple(notes))


def _layers(model: nn.Module, batch: Tensor) -> list[str]:
    """The stem, where there is one, and the stages; of many stages some, evenly, the last among them."""
    stages = default_layers(model, batch)
    chosen = [stages[round((i + 1) * len(stages) / min(LAYERS, len(stages))) - 1] for i in range(min(LAYERS, len(stages)))]
    stem = dict(model.named_children()).get("stem", nn.Identity())
    return chosen if isinstance(stem, nn.Identity) else ["stem", *chosen]


def _small(found: LayerMaps) -> tuple[LayerMaps, tuple[int, int]]:
    """The maps, larger ones averaged to `SIDE` pixels, with the size that they had."""
    height, width = found.maps.shape[2:]
    small = F.adaptive_avg_pool2d(found.maps, (min(height, SIDE), min(width, SIDE)))
    return LayerMaps(found.layer, small), (height, width)


def _record(found: tuple[LayerMaps, tuple[int, int]], image: int) -> Maps:
    return replace(maps_record(found[0], image, most=CHANNELS), side=found[1])


def _picture(image: Tensor) -> Tensor:
    """A uint8 image (C, H, W) in colour, a large one averaged."""
    height, width = image.shape[1:]
    small = F.adaptive_avg_pool2d(image.float()[None], (min(height, PICTURE), min(width, PICTURE)))[0]
    return small.round().to(torch.uint8).expand(3, -1, -1)


def _predictions(
    model: nn.Module, batch: Tensor, *, names: Sequence[str], classes: Sequence[str]
) -> list[Prediction]:  # fmt: skip
    with torch.no_grad(), at_rest(model):
        best = run(model, batch).float().softmax(1).topk(min(ANSWERS, len(classes)))
    return [
        Prediction(name, tuple(classes[i] for i in indices), tuple(shares))
        for name, indices, shares in zip(names, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _filters(model: nn.Module) -> Filters | None:
    try:
        return first_filters(model)
    except UserError:  # a network without a convolution is a legitimate, if odd, variant
        return None
