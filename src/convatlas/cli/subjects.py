"""The network that `convatlas look` looks into, and the looking: everything here takes torch along when it is called."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from convatlas.cli.console import printable
from convatlas.cli.options import is_run, trust_code, typed_model
from convatlas.errors import UserError
from convatlas.records.finished import result_in
from convatlas.records.weights import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn

    from convatlas.records.attribution import Attribution
    from convatlas.records.look import Activity, EffectiveField, Filters, Look, Maps
    from convatlas.records.run import Prediction

SEEDS = (0, 1)
"""Of the random weights that attributions are held against: each costs every map twice more."""
IMAGENET: tuple[tuple[float, ...], tuple[float, ...]] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Means and deviations of ImageNet's colours, by which pictures are normalised for a network that has no weights of its own."""
GREY: tuple[tuple[float, ...], tuple[float, ...]] = ((0.5,), (0.5,))
T = TypeVar("T")


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


@dataclass(frozen=True)
class Wanted:
    """What is to be looked at. `strict` makes an error of a part that cannot be had; else it is left out, with a note."""

    images: tuple[Path, ...]
    parts: tuple[str, ...]
    layers: tuple[str, ...]
    target: int | None
    strict: bool


# The network


def find_subject(
    name: str, *, pretrained: str | None, image_size: int | None, in_chans: int | None, code: list[Path] | None = None
) -> Subject:
    """A run's network, one from a file, or a variant of the atlas, configured or not. `code` are files that a run may run."""
    from convatlas.models.user_files import is_user_file

    if is_run(name) or ("{" not in name and Path(name).is_dir()):
        if (pretrained, image_size, in_chans) != (None, None, None):
            raise UserError("a run has its own weights, image size and channels", fix="Leave --pretrained and the like out.")
        trust_code(code)
        return _run(result_in(Path(name)))
    if code:
        raise UserError("--code is for a run's folder: a file that is named as the model is run anyway", fix="Leave it out.")
    name = typed_model(name)
    if is_user_file(name):
        if pretrained is not None:
            raise UserError("--pretrained is for models of the atlas", fix="Let the function in the file load the weights.")
        return _own(name, image_size, in_chans)
    if in_chans is not None:
        raise UserError("--in-chans is for networks from files", fix="Leave it out.")
    return _variant(name, pretrained, image_size)


def _run(folder: Path) -> Subject:
    from convatlas.models.user_files import OwnNetwork
    from convatlas.training.checkpoint import load_model

    model, config = load_model(folder)
    if isinstance(model, OwnNetwork):
        model = model.stages[0]  # its layers have the names that its file gives them
    what = f"{config.model} as trained in {folder.name or folder}"
    return Subject(config.model, model, what, True, config.preprocessing, config.classes, folder)


def _own(name: str, image_size: int | None, in_chans: int | None) -> Subject:
    from convatlas.models.user_files import model_from_file, takes

    if in_chans not in (None, 1, 3):
        raise UserError(f"--in-chans is {in_chans}", fix="Pictures have 1 channel or 3.")
    size = takes(name).get("image_size", 224) if image_size is None else image_size
    mean, std = GREY if in_chans == 1 else IMAGENET
    how = Preprocessing(mean, std, size, size, "bicubic")
    what = "weights as the file makes them; whether they are trained is not known, and for random ones no map means anything"
    model = model_from_file(name, in_chans=in_chans, image_size=image_size)
    return Subject(name, model, what, True, how, ())


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
        mean, std = IMAGENET if variant.in_chans == 3 else GREY
        how = Preprocessing(mean, std, size, size, "bicubic")
        return Subject(name, model, f"{name} with random weights, seed 0", False, how, ())
    how = model.loaded.preprocessing or Preprocessing(*IMAGENET, size, size, "bicubic")
    if image_size is not None:
        how = Preprocessing(how.mean, how.std, image_size, image_size, how.interpolation)
    return Subject(name, model, f"{name} with the weights {model.loaded.source}", True, how, ())


# Looking


def looked(subject: Subject, wanted: Wanted) -> "Look":
    """All that is wanted of the network. Raises UserError for pictures that cannot be read, and for what the network refuses."""
    from convatlas.cli.progress import loading_bar
    from convatlas.inspection.rendering import png_url
    from convatlas.inspection.running import find_layer
    from convatlas.records.look import Look, LookedAt

    for layer in wanted.layers:
        find_layer(subject.model, layer)
    names = _names(wanted.images)
    with loading_bar() as progress:
        batch = _batch(subject, wanted.images)
        pictures = _seen(batch, subject.preprocessing)
        predictions = _predictions(subject, batch, names, wanted.target)
        looking = _Looking(subject, wanted, batch, progress)
        maps, filters, busy, fields = looking.maps(), looking.filters(), looking.activities(), looking.fields()
        attributions = looking.attributions(pictures, names)
    images = tuple(
        LookedAt(name, png_url(pictures[i]), predictions[i], maps[i] if maps else (), tuple(attributions.get(i, ())))
        for i, name in enumerate(names)
    )
    shape = (batch.shape[1], batch.shape[2], batch.shape[3])
    return Look(subject.name, subject.weights, subject.trained, shape, images, filters, busy, fields, tuple(looking.notes))


def _names(images: tuple[Path, ...]) -> list[str]:
    """The pictures' names, or their paths where names are not enough to tell them apart."""
    names = [printable(path.name) for path in images]
    return names if len(set(names)) == len(names) else [printable(str(path)) for path in images]


def _batch(subject: Subject, images: tuple[Path, ...]) -> "Tensor":
    import torch

    from convatlas.data.preprocessing import preprocess

    try:
        return torch.stack([preprocess(path, subject.preprocessing) for path in images])
    except UserError as error:
        raise UserError(error.what, fix="Give another picture.") from None


def _seen(batch: "Tensor", how: Preprocessing) -> "Tensor":
    """What the network sees as pictures again: uint8 (N, 3, H, W)."""
    import torch

    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (how.mean, how.std))
    return (255 * (batch * std + mean)).round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)


def _predictions(subject: Subject, batch: "Tensor", names: list[str], target: int | None) -> list["Prediction"]:
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
    if target is not None and not 0 <= target < logits.shape[1]:
        raise UserError(f"--target is {target}, and there are {logits.shape[1]} classes", fix="Give an index from 0.")
    best = logits.float().softmax(1).cpu().topk(min(5, logits.shape[1]))
    return [
        Prediction(name, tuple(_label(subject, i) for i in indices), tuple(shares))
        for name, indices, shares in zip(names, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _label(subject: Subject, index: int) -> str:
    return subject.classes[index] if subject.classes else f"class {index}"


class _Looking:
    """Each part of what is wanted; one that is not wanted, or cannot be had, is empty."""

    def __init__(self, subject: Subject, wanted: Wanted, batch: "Tensor", progress: Callable[[str, int, int], None]) -> None:
        self.notes: list[str] = []
        self._model, self._trained, self._wanted, self._batch, self._progress = (
            subject.model, subject.trained, wanted, batch, progress
        )  # fmt: skip

    def maps(self) -> list[tuple["Maps", ...]]:
        """The feature maps of each image."""
        from convatlas.inspection.feature_maps import feature_maps, maps_record

        found = self._part("maps", lambda: feature_maps(self._model, self._batch, layers=self._wanted.layers))
        return [tuple(maps_record(each, i) for each in found) for i in range(len(self._batch))] if found else []

    def filters(self) -> "Filters | None":
        """Those of the first convolution."""
        from convatlas.inspection.filters import first_filters

        return self._part("filters", lambda: first_filters(self._model))

    def activities(self) -> tuple["Activity", ...]:
        """How busy each layer is."""
        from convatlas.inspection.activations import activations

        return self._part("activations", lambda: activations(self._model, self._batch)) or ()

    def fields(self) -> tuple["EffectiveField", ...]:
        """What units in the middle really look at."""
        from convatlas.inspection.effective_field import effective_fields

        return self._part("field", lambda: effective_fields(self._model, self._batch, layers=self._wanted.layers)) or ()

    def attributions(self, pictures: "Tensor", names: list[str]) -> dict[int, list["Attribution"]]:
        """The maps of each image by its place. Where Grad-CAM cannot be had the other methods still are."""
        from convatlas.inspection.saliency import METHODS

        found: dict[int, list[Attribution]] = {}
        places = {f"{i} {name}": i for i, name in enumerate(names)}
        for method in METHODS:
            for each in self._part("attributions", partial(self._attributed, pictures, list(places), method)) or ():
                found.setdefault(places[each.image], []).append(replace(each, image=names[places[each.image]]))
        return found

    def _attributed(self, pictures: "Tensor", names: list[str], method: str) -> tuple["Attribution", ...]:
        from convatlas.inspection.attribution import attribute

        return attribute(
            self._model,
            self._batch,
            pictures=pictures,
            names=names,
            trained=self._trained,
            target=self._wanted.target,
            methods=(method,),
            seeds=SEEDS,
            tick=lambda share: self._progress(method, round(100 * share), 100),
        )

    def _part(self, part: str, act: Callable[[], T]) -> T | None:
        if part not in self._wanted.parts:
            return None
        self._progress("looking", self._wanted.parts.index(part) + 1, len(self._wanted.parts))
        try:
            return act()
        except UserError as error:
            if self._wanted.strict and "captum" not in str(error):
                raise
            self.notes += [] if (said := f"{part}: {error}") in self.notes else [said]
            return None


def file_name(layer: str) -> str:
    """A layer's path as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", layer)[:100] or "network"
