"""A network as it is measured: with images, labels and an optimizer, ready to answer and to train."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from convatlas.layers.network import Network
from convatlas.models.registry import create_model
from convatlas.records.run import Recipe
from convatlas.training.engine import applied, choose
from convatlas.training.optim import MovingAverage, make_optimizer
from convatlas.training.precision import autocast, memory_format

QUIET_LR = 1e-4
"""A learning rate at which random labels make no weight overflow: numbers that are none may take another time."""
LEARNT_FROM = 256


class Contestant:
    """A network with what is needed for it to answer and to train: its images (N, C, H, W), labels, and optimizer."""

    def __init__(self, recipe: Recipe, images: Tensor, *, num_classes: int) -> None:
        self.recipe = replace(recipe, lr=QUIET_LR)
        n, in_chans, size, _ = images.shape
        model: Network = create_model(recipe.model, num_classes=num_classes, in_chans=in_chans, image_size=size)
        model.learn_from(lambda most: images[: min(most, LEARNT_FROM)])
        self.choices = choose(recipe, model)
        self.device = self.choices.device
        self.model = model.to(device=self.device, memory_format=memory_format(self.choices))  # type: ignore[call-overload]
        self.x = images.to(self.device, memory_format=torch.channels_last)
        self.y = (torch.arange(n) % num_classes).to(self.device)
        self.optimizer = make_optimizer(self.model, self.recipe)
        self.average = MovingAverage(self.model, recipe.ema) if recipe.ema > 0 else None
        self.steps = 0

    def answer_one(self) -> None:
        """The logits of one image."""
        self._answer(self.x[:1])

    def answer(self) -> None:
        """The logits of the batch."""
        self._answer(self.x)

    def _answer(self, x: Tensor) -> None:
        self.model.eval()
        with torch.inference_mode():
            self.model(x)

    def step(self) -> None:
        """One training step on the batch: forward, backward, and the optimizer's, as the recipe says."""
        self.model.train()
        self.steps += 1
        x = self.x.contiguous(memory_format=memory_format(self.choices))
        with applied(self.choices, self.model) as answer:
            with autocast(self.choices):
                answers = answer(x)
            losses = [w * F.cross_entropy(z.float(), self.y, label_smoothing=self.recipe.label_smoothing) for w, z in answers]
            self.optimizer.zero_grad()
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_grad > 0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.steps)

    def finish(self) -> None:
        """Wait until the device has done what it was asked for."""
        if self.device == "cuda":
            torch.cuda.synchronize()
