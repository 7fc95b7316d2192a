"""Looking at a classifier's errors on one split: how good it is class by class, how sure, which answers are wrong, and why."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from convatlas.arith.proportion import wilson
from convatlas.data.augment import normalise
from convatlas.data.batches import centre, scaled
from convatlas.data.dataset import ImageSet
from convatlas.errors import UserError
from convatlas.inspection.rendering import enlarged, overlay, png_url
from convatlas.inspection.running import at_rest, check_runs, run
from convatlas.inspection.saliency import choose_layer, quiet, quiet_copy, saliency, watch
from convatlas.records.errors_look import ClassScore, ErrorReport, JudgedImage, Suspect
from convatlas.records.study import Interval
from convatlas.training.evaluate import Progress, counting, predict_logits
from convatlas.transfer.calibration import calibration, check_answers
from convatlas.transfer.suspects import label_suspects

AT_ONCE = 32
"""Photographs passed through the network together: more would take gigabytes for the maps of a wide network."""
SHOWN = 12
"""Pictures of each kind."""
SIDE = 112
"""Pixels a side of a picture on the page."""


@dataclass(frozen=True)
class Preparation:
    """How images become the network's input: the middle `size` x `size` pixels, then (x / 255 - mean) / std per channel."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def examine_errors(
    model: nn.Module,
    images: ImageSet,
    *,
    names: tuple[str, ...],
    classes: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: int,
    temperature: float,
    split: str,
    fitted_on: str = "val",
    progress: Progress | None = None,
) -> ErrorReport:
    """What `model`, which gives logits (N, classes), answers on `images`, with the pictures that a person should look at.

    `names` has one for each image. The network sees the middle `size` x `size` pixels, as (x / 255 - mean) / std;
    `temperature` is what logits are divided by (`calibration.fit_temperature`), fitted on the split `fitted_on`. Intervals
    are Wilson's (1927) of 95 %. Maps are Grad-CAM's (`inspection.saliency`) at the last layer with places, for the class that
    was answered; where there can be none, a note says why. Suspects are those of `suspects.label_suspects`, which holds for
    images that were not trained on. `progress(what, done, total)` counts images. The model, its modes, hooks and gradients,
    and the random state are left as they were. Raises UserError.
    """
    how = Preparation(size, mean, std)
    _check(images, names, classes, how)
    seen = ImageSet(centre(images.images, size), images.labels)
    logits = _logits(model, seen, how, classes, told=counting(progress, "looking at errors", len(seen)))
    before, after = (calibration(logits, seen.labels, temperature=each) for each in (1.0, temperature))
    answers = Answers((logits.double() / temperature).softmax(1), seen.labels, names, classes)
    pictures = Pictures(model, seen.images, answers.said, how)
    worst, unsure = (
        tuple(answers.judged(i, pictures) for i in chosen.tolist()) for chosen in (answers.surest_wrong(), answers.closest())
    )
    return ErrorReport(
        split=split,
        n=len(seen),
        size=size,
        classes=classes,
        accuracy=_share(int((answers.said == seen.labels).sum()), len(seen), of="the images"),
        confusion=answers.confusion,
        scores=_scores(answers.confusion, classes),
        worst=worst,
        unsure=unsure,
        temperature=temperature,
        fitted_on=fitted_on,
        before=before,
        after=after,
        suspects=answers.suspects(pictures),
        layer=pictures.layer,
        notes=pictures.notes,
    )


def _logits(
    model: nn.Module, seen: ImageSet, how: Preparation, classes: tuple[str, ...], *, told: Callable[[int], None] | None
) -> Tensor:
    """The logits (N, classes) for all images, in float32 on the CPU."""
    device = check_runs(model, seen.images)
    with at_rest(model):  # gives each layer its own mode back: predict_logits gives all of them the whole model's
        with torch.inference_mode():
            first = run(model, _input(seen.images[:1].to(device), how))
        if not isinstance(first, Tensor) or first.shape != (1, len(classes)):
            given = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
            raise UserError(
                f"the network gives {given} for an image of {len(classes)} classes", fix="Give the classes that it has."
            )
        chunks = torch.split(torch.arange(len(seen)), AT_ONCE)
        parts = [seen.subset(chunk) for chunk in chunks]
        logits = torch.cat([predict_logits(model, part, mean=how.mean, std=how.std, told=told) for part in parts])
    check_answers(logits, seen.labels)
    return logits


def _input(images: Tensor, how: Preparation) -> Tensor:
    """uint8 images (N, C, size, size) as the network takes them."""
    return normalise(images, mean=how.mean, std=how.std, dtype=torch.float32, memory_format=torch.contiguous_format)


# Answers


@dataclass(frozen=True)
class Answers:
    """What a network says of N images: `probabilities` (N, C), against `labels` (N,), with the names of images and classes."""

    probabilities: Tensor
    labels: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]

    @cached_property
    def said(self) -> Tensor:
        """The index of the likeliest class, int64 (N,)."""
        return self.probabilities.argmax(1)

    @cached_property
    def margin(self) -> Tensor:
        """By how much the likeliest class is likelier than the next one, (N,)."""
        first, second = self.probabilities.topk(2, dim=1).values.unbind(1)
        return first - second

    @cached_property
    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """Counts, one row for each true class, one column for each that was answered."""
        size = len(self.classes)
        counts = torch.bincount(self.labels * size + self.said, minlength=size * size)
        return tuple(tuple(row) for row in counts.view(size, size).tolist())

    def surest_wrong(self) -> Tensor:
        """Up to twelve wrong answers, the likeliest first."""
        wrong = (self.said != self.labels).nonzero().flatten()
        sure = self.probabilities.amax(1)[wrong]
        return wrong[sure.argsort(descending=True, stable=True)][:SHOWN]

    def closest(self) -> Tensor:
        """Up to twelve answers, right or wrong, the smallest margin first."""
        return self.margin.argsort(stable=True)[:SHOWN]

    def judged(self, index: int, pictures: "Pictures") -> JudgedImage:
        """The record of one image."""
        top = self.probabilities[index].topk(2)
        return JudgedImage(
            index=index,
            image=self.names[index],
            truth=self.classes[int(self.labels[index])],
            predicted=self.classes[int(top.indices[0])],
            probability=float(top.values[0]),
            runner_up=self.classes[int(top.indices[1])],
            margin=float(self.margin[index]),
            picture=pictures.picture(index),
            map=pictures.map(index),
        )

    def suspects(self, pictures: "Pictures") -> tuple[Suspect, ...]:
        """All labels that may be wrong, the first twelve with their picture."""
        found = []
        for rank, (index, suggested) in enumerate(label_suspects(self.probabilities, self.labels)):
            own, other = (float(self.probabilities[index, each]) for each in (int(self.labels[index]), suggested))
            found.append(
                Suspect(
                    index=index,
                    image=self.names[index],
                    given=self.classes[int(self.labels[index])],
                    suggested=self.classes[suggested],
                    probability=own,
                    margin=other - own,
                    picture=pictures.picture(index) if rank < SHOWN else None,
                )
            )
        return tuple(found)


def _scores(confusion: tuple[tuple[int, ...], ...], classes: tuple[str, ...]) -> tuple[ClassScore, ...]:
    """Every class, in order."""
    found = []
    for i, name in enumerate(classes):
        n, answers, right = sum(confusion[i]), sum(row[i] for row in confusion), confusion[i][i]
        found.append(
            ClassScore(
                name=name,
                n=n,
                answers=answers,
                found=right,
                precision=_share(right, answers, of="the answers") if answers else None,
                recall=_share(right, n, of="the class's images") if n else None,
                f1=2 * right / (n + answers) if n else None,
            )
        )
    return tuple(found)


def _share(count: int, n: int, *, of: str) -> Interval:
    low, high = wilson(count / n, n)
    return Interval(count / n, low, high, n, f"Wilson score over {of}")


# Pictures


class Pictures:
    """Pictures of some of the images, made when they are asked for, and maps of what spoke for the answer."""

    def __init__(self, model: nn.Module, images: Tensor, said: Tensor, how: Preparation) -> None:
        self._images, self._said, self._how = images, said, how
        self._network, self._maps = quiet_copy(model), dict[int, str | None]()
        self.layer: str | None = None
        self.notes: tuple[str, ...] = ()
        try:
            self.layer = self._last_layer()
            self.map(0)  # tells whether maps can be made at all
        except UserError as error:
            self.layer = None
            self.notes = (f"There are no maps: {error}",)

    def picture(self, index: int) -> str:
        """What the network saw, as a PNG data URL."""
        return png_url(self._small(index))

    def map(self, index: int) -> str | None:
        """Grad-CAM for the class that was answered, over the picture; None where nothing, or no layer, speaks for it."""
        if self.layer is None:
            return None
        if index not in self._maps:
            values = self._saliency(index, self.layer)
            self._maps[index] = png_url(overlay(self._small(index), values, low=0.0)) if bool(values.max() > 0) else None
        return self._maps[index]

    def _small(self, index: int) -> Tensor:
        """uint8 (3, h, w): scaled down to 112 pixels, or up by whole pixels."""
        image = self._images[index : index + 1]
        small = scaled(image, SIDE, mode="bicubic") if image.shape[-1] > SIDE else image
        return enlarged(small[0].expand(3, -1, -1), SIDE)

    @torch.inference_mode(False)
    def _saliency(self, index: int, layer: str) -> Tensor:
        with at_rest(self._network), torch.enable_grad(), quiet():
            found = saliency("grad-cam", self._network, self._one(index), target=int(self._said[index]), layer=layer)
        return found.values.cpu()

    @torch.inference_mode(False)
    def _last_layer(self) -> str:
        with at_rest(self._network), torch.enable_grad(), quiet():
            return choose_layer(self._network, watch(self._network, self._one(0)), None)

    def _one(self, index: int) -> Tensor:
        """The network's input for one image, on its device and in its precision."""
        image = _input(self._images[index : index + 1].clone(), self._how)
        return image.to(next((each for each in self._network.parameters() if each.is_floating_point()), image))


# Checks


def _check(images: ImageSet, names: Sequence[str], classes: Sequence[str], how: Preparation) -> None:
    if not len(images):
        raise UserError("there are no images to look at", fix="Give a split that has some.")
    if len(names) != len(images):
        raise UserError(f"there are {len(names)} names for {len(images)} images", fix="Give one for each image.")
    if len(classes) < 2:
        raise UserError(f"there is {len(classes)} class", fix="Errors are made between two classes or more.")
    channels, height, width = images.images.shape[1:]
    if not 1 <= how.size <= min(height, width):
        raise UserError(
            f"the middle {how.size} pixels of images of {height}x{width} do not exist", fix=f"Choose 1 to {min(height, width)}."
        )
    if channels not in (1, 3) or not len(how.mean) == len(how.std) == channels:
        raise UserError(
            f"there are {len(how.mean)} means and {len(how.std)} deviations for {channels} channels",
            fix="Give grey or RGB images, and one of each for each channel.",
        )
    if not all(map(math.isfinite, (*how.mean, *how.std))) or min(how.std) <= 0:
        raise UserError(f"the deviations are {how.std}", fix="Give finite means, and deviations above 0.")
