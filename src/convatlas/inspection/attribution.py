"""Maps of what speaks for a class, for any classifier, each held against the maps of the same network with random weights.

The maps are Grad-CAM, integrated gradients and occlusion (`saliency`), the check is Adebayo et al.'s (`randomisation`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from statistics import fmean

import torch
from torch import Tensor, nn

from convatlas.errors import UserError, unknown_name
from convatlas.inspection.randomisation import randomised, rank_correlation, structural_similarity
from convatlas.inspection.rendering import captioned, enlarged, overlay, png_url
from convatlas.inspection.saliency import METHODS, Saliency, check_logits, choose_layer, quiet, quiet_copy, saliency, watch
from convatlas.records.attribution import Attribution, RandomisationCheck

SEEDS = (0, 1, 2)
THRESHOLD = 0.5
"""From this rank correlation on, with random weights all over, a map fails. On photographs and a trained EfficientNet-Lite0 the
edges of the image times the input gradient, a map known to say little, reach it on most, and Grad-CAM on none (docs/LOG.md)."""
TOP_THRESHOLD = 0.9
"""The same with a random last layer, which leaves maps alike that do depend on it: guided backpropagation reaches it, which is
known not to tell classes apart (Adebayo et al. 2018, section 4.1), and Grad-CAM stays below (docs/LOG.md)."""
FEWEST = 16
"""Pixels that a map must have for the check: of fewer, chance alone gives correlations beyond the threshold too often."""
BRIGHTEST = 0.99
"""The share of pixels that the colours tell apart; single pixels above would leave the rest dark."""
READABLE = 224
"""Pixels that a picture's longer side has at least, so that the words below it can be read."""


@torch.inference_mode(False)
def attribute(
    model: nn.Module,
    images: Tensor,
    *,
    pictures: Tensor,
    names: Sequence[str],
    trained: bool,
    target: int | None = None,
    layer: str | None = None,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = SEEDS,
    tick: Callable[[float], None] | None = None,
) -> tuple[Attribution, ...]:
    """A map for each image and method, image by image: `images` (N, C, H, W) normalised, for a network that gives logits.

    `pictures`, uint8 (N, 3, h, w), are what the maps are laid over, `names` what they are called. `target` is the index of a
    class, None each image's likeliest. `layer` is Grad-CAM's, None the last one with places (`saliency.choose_layer`).
    A network that is not `trained` has nothing to lose by random weights, and is not checked. `tick` is told the share done.
    The model, its mode, hooks and gradients, and the random state are left as they were. Raises UserError.
    """
    _check(images, pictures, names, methods, seeds)
    seeds = seeds if trained else ()
    network = quiet_copy(model)
    images = _as_weights(network, images)
    with _random_state_kept(images), torch.enable_grad(), quiet():
        passed = watch(network, images[:1])
        chosen = choose_layer(network, passed, layer) if "grad-cam" in methods or layer is not None else None
        todo = _Todo(images, methods, _targets(network, images, target), chosen, 1 + 2 * len(seeds), tick)
        own = todo.maps(network)
        top = [todo.maps(randomised(network, images, seed=seed, only=passed.top)) for seed in seeds]
        whole = [todo.maps(randomised(network, images, seed=seed)) for seed in seeds]
    records = []
    for i, (image, method, aim) in enumerate(todo.pairs()):
        check = _compared(own[i].values, [maps[i].values for maps in top], [maps[i].values for maps in whole], seeds)
        records.append(_record(own[i], check, pictures[image], name=names[image], method=method, target=aim))
    return tuple(records)


def _record(
    own: Saliency, check: RandomisationCheck | None, picture: Tensor, *, name: str, method: str, target: int
) -> Attribution:
    passed, note = _verdict(own.values, check)
    return Attribution(
        image=name,
        method=method,
        layer=own.layer,
        target=target,
        settings=own.settings,
        picture=_picture(picture, own.values, note),
        gap=own.gap,
        check=check,
        passed=passed,
        note=note,
    )


class _Todo:
    """Every pair of an image and a method, for one network after the other."""

    def __init__(
        self,
        images: Tensor,
        methods: Sequence[str],
        targets: Sequence[int],
        layer: str | None,
        networks: int,
        tick: Callable[[float], None] | None,
    ) -> None:
        self.images, self.methods, self.targets, self.layer, self.tick = images, methods, targets, layer, tick
        self.total, self.done = networks * len(images) * len(methods), 0

    def pairs(self) -> Iterator[tuple[int, str, int]]:
        """The image's index, the method and the target."""
        for i, aim in enumerate(self.targets):
            for method in self.methods:
                yield i, method, aim

    def maps(self, network: nn.Module) -> list[Saliency]:
        """The maps of all pairs."""
        found = []
        for i, method, aim in self.pairs():
            torch.manual_seed(0)
            found.append(saliency(method, network, self.images[i : i + 1], target=aim, layer=self.layer))
            self.done += 1
            if self.tick is not None:
                self.tick(self.done / self.total)
        return found


def _compared(own: Tensor, top: Sequence[Tensor], whole: Sequence[Tensor], seeds: Sequence[int]) -> RandomisationCheck | None:
    """A map beside those of networks with a random last layer, and with random weights all over; None if there are none."""
    if not seeds:
        return None
    correlations = [rank_correlation(own, each) for each in whole]
    return RandomisationCheck(
        seeds=tuple(seeds),
        correlation=fmean(correlations),
        lowest=min(correlations),
        highest=max(correlations),
        top=fmean(rank_correlation(own, each) for each in top),
        ssim=fmean(structural_similarity(own, each) for each in whole),
        threshold=THRESHOLD,
        top_threshold=TOP_THRESHOLD,
    )


def _verdict(values: Tensor, check: RandomisationCheck | None) -> tuple[bool | None, str]:
    """Whether the map depends on what was learnt, None where that cannot be told; and the outcome in a sentence."""
    if values.max() == values.min():
        return None, "The map is the same everywhere: this method finds nothing that speaks for the class."
    if check is None:
        return None, "Untrained network: its weights are random already, so that there is nothing to check."
    if values.numel() < FEWEST:
        return None, f"A map of {len(values)}x{values.shape[1]} pixels is too small to check with random weights."
    if check.correlation >= check.threshold:
        return False, f"FAILS: hardly changes when the weights are randomised (rank correlation {check.correlation:.2f})"
    if check.top >= check.top_threshold:
        return False, f"FAILS: hardly changes when the last layer is randomised (rank correlation {check.top:.2f})"
    return True, f"Changes when the weights are randomised: passed (rank correlation {check.correlation:.2f})"


def _picture(picture: Tensor, values: Tensor, note: str) -> str:
    """The map over the picture, with the outcome below, as a data URL."""
    ranked = values.flatten().sort().values
    brightest = float(ranked[int(BRIGHTEST * (len(ranked) - 1))]) or float(ranked[-1])
    return png_url(captioned(overlay(enlarged(picture.cpu(), READABLE), values, low=0.0, high=brightest), note))


def _targets(network: nn.Module, images: Tensor, asked: int | None) -> list[int]:
    """The index of the class for each image."""
    with torch.no_grad():
        logits = torch.cat([network(image) for image in images[:, None]])
    check_logits(logits)
    if asked is None:
        return [int(index) for index in logits.argmax(1)]
    if not 0 <= asked < logits.shape[1]:
        raise UserError(f"the class {asked} does not exist", fix=f"Give an index from 0 to {logits.shape[1] - 1}.")
    return [asked] * len(images)


def _as_weights(network: nn.Module, images: Tensor) -> Tensor:
    """The images on the device and in the precision of the network's first parameter. Raises UserError for the meta device."""
    images = images.detach().clone()
    first = next((each for each in network.parameters() if each.is_floating_point()), images)
    if first.is_meta or images.is_meta:
        raise UserError("the network or the images are on the meta device and have no values", fix="Load weights and images.")
    return images.to(first)


def _check(images: Tensor, pictures: Tensor, names: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> None:
    if images.dim() != 4 or not len(images) or not images.is_floating_point():
        raise UserError(f"the images have shape {tuple(images.shape)}", fix="Give floating-point images (N, C, H, W).")
    if pictures.dim() != 4 or pictures.shape[1] != 3 or pictures.dtype != torch.uint8:
        raise UserError(f"the pictures have shape {tuple(pictures.shape)}", fix="Give uint8 pictures (N, 3, h, w).")
    if not len(images) == len(pictures) == len(names):
        raise UserError(
            f"there are {len(images)} images, {len(pictures)} pictures and {len(names)} names", fix="Give as many of each."
        )
    if not methods or not seeds:
        raise UserError("there are no methods or no seeds", fix=f"Give one or more; methods are {', '.join(METHODS)}.")
    for method in methods:
        if method not in METHODS:
            raise unknown_name("method", method, METHODS, where=f"There is {', '.join(METHODS)}.")


def _random_state_kept(images: Tensor) -> AbstractContextManager[None]:
    return torch.random.fork_rng(devices=[images.device] if images.device.type == "cuda" else [])
