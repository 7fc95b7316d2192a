"""Features computed once: what a frozen body makes of each image, so that the classifier alone is trained in seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convatlas.data.batches import evaluation_batches, generator_of
from convatlas.data.dataset import DataSet, ImageSet
from convatlas.data.policies import apply_policy, draw_policy
from convatlas.layers.network import Network
from convatlas.training.evaluate import at_once
from convatlas.transfer.groups import CLASSIFIER, classifier_of

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Features:
    """What enters the classifier: float32 `train` (copies, N, F), one copy for each augmented view, and `val` (M, F)."""

    train: Tensor
    val: Tensor


def features_of(model: Network, data: DataSet, *, policy: str, copies: int, flip: bool, seed: int, told: Told) -> Features:
    """The features of the training images (augmented by `policy`, `copies` times) and of the validation images.

    The body is evaluated: nothing of it changes. `told(done, total)` counts images.
    """
    total = copies * len(data.train) + len(data.val)
    done = 0

    def counted(n: int) -> None:
        nonlocal done
        done += n
        told(done, total)

    with _bodily(model):
        train = [
            _passed(model, _augmented(data, policy=policy, flip=flip, seed=seed, copy=copy), data, told=counted)
            for copy in range(copies)
        ]
        return Features(torch.stack(train), _passed(model, data.val, data, told=counted))


def _augmented(data: DataSet, *, policy: str, flip: bool, seed: int, copy: int) -> ImageSet:
    """The training images as the policy draws them for this copy, at the size that the network sees."""
    if policy == "none":
        return data.train
    generator = generator_of(seed, copy, "features")
    images = data.train.images
    pieces = []
    for first in range(0, len(images), 256):
        part = images[first : first + 256]
        draws = draw_policy(len(part), policy=policy, flip=flip, generator=generator)
        pieces.append(apply_policy(part, draws, size=data.image_size))
    return ImageSet(torch.cat(pieces), data.train.labels)


def _passed(model: Network, images: ImageSet, data: DataSet, *, told: Callable[[int], None]) -> Tensor:
    if not len(images):
        return torch.empty(0)
    device = next(model.parameters()).device
    found = []
    with torch.no_grad():
        for x, y in evaluation_batches(
            images,
            batch_size=at_once(len(images), data.image_size),
            mean=data.mean,
            std=data.std,
            dtype=torch.float32,
            memory_format=torch.channels_last,
            device=device,
            size=data.image_size,
        ):
            found.append(model(x).float())
            told(len(y))
    return torch.cat(found)


@contextmanager
def _bodily(model: Network) -> Iterator[None]:
    """The network without its classifier, in evaluation mode; all is as it was afterwards."""
    classifier, modes = classifier_of(model), [(module, module.training) for module in model.modules()]
    setattr(model.head, CLASSIFIER, nn.Identity())
    model.eval()
    try:
        yield
    finally:
        setattr(model.head, CLASSIFIER, classifier)
        for module, mode in modes:
            module.training = mode
