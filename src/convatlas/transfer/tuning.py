"""Fine-tuning as a method of training: what the strategy opens learns, the rest provably stays as it is."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from convatlas.data.batches import generator_of
from convatlas.data.dataset import DataSet
from convatlas.data.policies import balanced_order, policy_batches, policy_batches_in_epoch
from convatlas.errors import UserError
from convatlas.layers.network import Network
from convatlas.models.registry import create_model
from convatlas.records import codec, storage
from convatlas.records.run import ModelConfig, Recipe
from convatlas.records.tuning import FrozenPhase, Receipt, Tuning
from convatlas.training.engine import Answer
from convatlas.training.method import Method
from convatlas.training.outcome import heeding
from convatlas.training.precision import memory_format
from convatlas.training.state import Run
from convatlas.transfer.cached import Features, features_of
from convatlas.transfer.calibration import fit_temperature
from convatlas.transfer.freezing import check_still, fingerprints, freeze, frozen_tensors, sealed
from convatlas.transfer.groups import classifier_of, groups_of
from convatlas.transfer.losses import balanced_weights, tuned_loss
from convatlas.transfer.strategies import key_at, make_tuning_optimizer, opening

RECEIPT = "receipt.json"
COLOURS = 3
_CLASSIFIERS = re.compile(r"head\.classifier\.|auxiliary\.\d+\.classifier\.")
LEAST_MOMENTUM = 0.1
"""Of BatchNorms that learn: with EfficientNet's 0.01 the statistics after fifty steps are still mostly those of the beginning."""
FEWEST_FOR_TEMPERATURE = 10
"""Validation images: with fewer, one number is not worth fitting."""


class FineTuning(Method):
    """One run of a recipe's `tuning`. The receipt is checked at the end of each phase, and its failure ends the run."""

    splits_batches = True

    def __init__(self, tuning: Tuning, *, class_weights: Tensor | None = None, temperature: float | None = None) -> None:
        self.tuning = tuning
        self._weights = class_weights
        self._temperature = temperature
        self.phases: list[FrozenPhase] = []
        self._groups: tuple[str, ...] = ()
        self._key: str | None = None
        self._placed = False
        self._since = 1
        self._before: dict[str, str] = {}
        self._first: list[tuple[torch.nn.Parameter, Tensor]] = []
        self._features: Features | None = None

    def network(self, recipe: Recipe, data: DataSet) -> Network:
        """The pretrained network with a new classifier. Raises UserError if the weights are not those the recipe began with."""
        model = create_model(
            recipe.model,
            pretrained=self.tuning.weights or False,
            num_classes=data.num_classes,
            in_chans=data.in_chans,
            image_size=data.image_size,
        )
        stages = len(list(model.stages.children()))
        if self.tuning.strategy == "last-stages" and self.tuning.stages > stages:
            raise UserError(f"{recipe.model} has {stages} stages, of which {self.tuning.stages} are to learn", fix="Give fewer.")
        if model.loaded is not None:
            _check_weights(recipe.model, self.tuning, model, data)
            _begin_classifier_anew(model, recipe.model, data)
        _let_statistics_follow(model)
        return model

    def optimizer(self, model: Network, recipe: Recipe) -> Optimizer:
        """The recipe's optimizer over all that the strategy ever trains."""
        self._groups = tuple(group.name for group in groups_of(model))
        if self.tuning.strategy == "l2-sp":
            below = [parameter for group in groups_of(model)[1:] for parameter in group.parameters]
            self._first = [(parameter, parameter.detach().clone()) for parameter in below]
        return make_tuning_optimizer(model, recipe, self.tuning)

    def rate_at(self, run: Run) -> float:
        """The middle of the step: of the few steps of a small set none is to have a rate of 0 because a warm-up begins there."""
        if run.recipe.epochs is None:
            return run.progress
        return run.progress + 0.5 / (run.recipe.epochs * self.batches_in_epoch(run.recipe, run.data))

    def batches_in_epoch(self, recipe: Recipe, data: DataSet) -> int:
        """All images, so that a small set loses none."""
        return policy_batches_in_epoch(len(data.train), recipe.batch_size)

    def batches(self, run: Run, *, size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as the policy augments them, or their cached features."""
        if self.tuning.cached:
            return self._cached_batches(run)
        tuning, recipe, data = self.tuning, run.recipe, run.data
        return policy_batches(
            data.train,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            epoch=run.position.epoch,
            policy=tuning.policy,
            size=data.image_size,
            flip=recipe.flip,
            mean=data.mean,
            std=data.std,
            mixup=tuning.mixup,
            cutmix=tuning.cutmix,
            num_classes=data.num_classes,
            balanced=tuning.balance == "sampling",
            dtype=torch.bfloat16 if run.choices.precision == "bf16" else torch.float32,
            memory_format=memory_format(run.choices),
            device=run.choices.device,
            start=run.position.batch,
        )

    def _cached_batches(self, run: Run) -> Iterator[tuple[Tensor, Tensor]]:
        """In the order in which the images themselves would come."""
        features, labels, epoch = self._cache(run).train, run.data.train.labels, run.position.epoch
        generator = generator_of(run.recipe.seed, epoch, "order")
        balanced = self.tuning.balance == "sampling"
        order = balanced_order(labels, generator) if balanced else torch.randperm(len(labels), generator=generator)
        copy, size = features[epoch % self.tuning.copies], run.recipe.batch_size
        for index in range(run.position.batch, self.batches_in_epoch(run.recipe, run.data)):
            chosen = order[index * size : (index + 1) * size]
            yield copy[chosen.to(copy.device)], labels[chosen].to(copy.device)

    def _cache(self, run: Run) -> Features:
        told = heeding(run.watch)  # nothing has been learned since the last saved state, so that none is saved
        if self._features is None:
            begun = time.monotonic()
            self._features = features_of(
                run.model,
                run.data,
                policy=self.tuning.policy,
                copies=self.tuning.copies,
                flip=run.recipe.flip,
                seed=run.recipe.seed,
                told=partial(told, "features of each image"),
            )
            if not run.position.step:  # before the first step nobody else counts the seconds
                run.position.seconds += time.monotonic() - begun
        return self._features

    def begin_epoch(self, run: Run) -> None:
        """Nothing yet: what is open is decided step by step, and no step may be left of an epoch that is gone on with."""
        self._placed = False

    def begin_step(self, run: Run) -> None:
        """Open what the strategy opens at this point of the budget, and freeze the rest: a phase may begin within an epoch."""
        share = self._share(run)
        if self._placed and key_at(self._groups, self.tuning, share) == self._key:
            return
        now = opening(run.model, self.tuning, share)
        freeze(run.model, now.trained, now.still)
        self._placed = True
        if now.key == self._key:
            return
        self._end_phase(run)
        self._key, self._since = now.key, run.position.epoch + 1
        self._before = fingerprints(frozen_tensors(run.model))

    def begin_range_test(self, run: Run) -> None:
        """Open what the strategy opens at the end: the rate that is found is for all of it. There is no receipt."""
        now = opening(run.model, self.tuning, 1.0)
        freeze(run.model, now.trained, now.still)

    def _share(self, run: Run) -> float:
        """The share of the budget that is spent. The last step of epochs is always of the last phase, however few there are."""
        if run.recipe.epochs is None:
            return run.progress
        steps = run.recipe.epochs * self.batches_in_epoch(run.recipe, run.data)
        return 1.0 if run.position.step + 1 >= steps else run.position.step / steps

    def _end_phase(self, run: Run) -> None:
        """Prove that what was frozen since the phase began still is what it was. Raises UserError that names what is not."""
        if self._key is None:
            return
        here = run.position
        own = dict(run.model.named_parameters()) | dict(run.model.named_buffers())
        after = fingerprints({name: own[name] for name in self._before})
        phase = FrozenPhase(
            first_epoch=self._since,
            last_epoch=here.epoch + (here.batch > 0),
            frozen=len(self._before),
            tensors=len(own),
            trained_parameters=sum(each.numel() for name, each in run.model.named_parameters() if name not in self._before),
            sha256_before=sealed(self._before),
            sha256_after=sealed(after),
        )
        self.phases.append(phase)
        storage.write_text(run.folder / RECEIPT, codec.to_text(Receipt(self.tuning.strategy, tuple(self.phases))))
        check_still(self._before, after)
        self._key = None

    def answer(self, run: Run, answer: Answer) -> Answer:
        """The network's own answer, without auxiliary heads; of cached features the classifier's."""
        if self.tuning.cached:
            classifier = classifier_of(run.model)
            return lambda features: ((1.0, classifier(features)),)
        return lambda x: ((1.0, run.model(x)),)

    def loss(self, logits: Tensor, y: Tensor, recipe: Recipe) -> Tensor:
        """Cross-entropy with the recipe's smoothing, weights of classes and focus."""
        weights = self._weights.to(logits.device) if self._weights is not None else None
        return tuned_loss(logits, y, label_smoothing=recipe.label_smoothing, class_weights=weights, focal=self.tuning.focal)

    def before_update(self, run: Run) -> None:
        """L2-SP's pull towards the first weights, at the learning rate, as AdamW decays: beside the gradient, not through it."""
        pull = min(self.tuning.l2_sp * run.optimizer.param_groups[-1]["lr"], 1.0) if self._first else 0.0
        with torch.no_grad():
            for parameter, first in self._first:
                parameter.lerp_(first.to(parameter.device), pull)

    def judge(self, run: Run) -> Tensor:
        """As ordinary training, or from the cached features."""
        if not self.tuning.cached:
            return super().judge(run)
        with torch.no_grad():
            judged = run.judged
            assert isinstance(judged, Network)
            logits: Tensor = classifier_of(judged)(self._cache(run).val)
            return logits.float().cpu()

    def end_epoch(self, run: Run, *, last: bool) -> None:
        """After the last one, the receipt; and a word if the run ended before the strategy's last phase."""
        if not last:
            return
        if self._key not in (None, key_at(self._groups, self.tuning, 1.0)):
            run.watch.note(
                f"note: {self.tuning.strategy} ended before it had opened all that it opens (what learnt: {self._key}): "
                "give it more time, or no --patience"
            )
        self._end_phase(run)

    def finish(self, run: Run, config: ModelConfig) -> ModelConfig:
        """With the preprocessing of the weights, and the temperature that fits the validation images best."""
        data, temperature = run.data, self._temperature or 1.0
        if self._temperature is None and len(data.val) >= FEWEST_FOR_TEMPERATURE:
            temperature = fit_temperature(Method.judge(self, run), data.val.labels)
        resize, interpolation = int(data.train.images.shape[-1]), self.tuning.preprocessing.interpolation
        return replace(config, resize=resize, temperature=temperature, interpolation=interpolation)

    def state(self) -> dict[str, Any]:
        """The phase under way, and the receipts of those before it."""
        phases = [codec.to_plain(phase) for phase in self.phases]
        return {"key": self._key, "since": self._since, "before": self._before, "phases": phases}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on in the phase that was under way."""
        self._key, self._since, self._before = state["key"], state["since"], state["before"]
        self.phases = [codec.from_plain(FrozenPhase, each, where="the saved receipt") for each in state["phases"]]


def _let_statistics_follow(model: Network) -> None:
    """Fine-tuning is short: no BatchNorm forgets more slowly than torch's own does."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, LEAST_MOMENTUM)


def method_of(recipe: Recipe, data: DataSet, *, temperature: float | None = None) -> Method:
    """What a recipe's run is made by: fine-tuning where it says so, else ordinary training.

    `temperature` is taken as it is (None: it is fitted on the validation images).
    """
    if recipe.tuning is None:
        return Method()
    balanced = recipe.tuning.balance == "weights"
    weights = balanced_weights(data.train.labels, data.num_classes) if balanced else None
    return FineTuning(recipe.tuning, class_weights=weights, temperature=temperature)


def weights_sha256(model: Network) -> str:
    """One SHA-256 over the tensors that were loaded, but those of classifiers, which begin anew."""
    fresh = set(model.loaded.fresh) if model.loaded is not None else set()
    loaded = {name: each for name, each in model.state_dict().items() if name not in fresh and not _CLASSIFIERS.match(name)}
    return sealed(fingerprints(loaded))


def _check_weights(name: str, tuning: Tuning, model: Network, data: DataSet) -> None:
    """Raises UserError if the network for the data was not begun with the weights that the recipe tells of."""
    if tuning.weights_sha256 is None:
        return
    if data.in_chans != COLOURS:  # its first convolution was fitted, and the fingerprint is of what it was
        model = create_model(name, pretrained=tuning.weights or False, num_classes=2, image_size=data.image_size)
    assert model.loaded is not None
    if weights_sha256(model) != tuning.weights_sha256:
        what = f"{model.loaded.source} does not hold the weights with which the run began"
        raise UserError(what, fix="Put the file back, or begin anew in another folder.")


def _begin_classifier_anew(model: Network, name: str, data: DataSet) -> None:
    """Random weights for the classifier, even where that of the file is for as many classes: they are others."""
    if model.loaded is not None and any(each.startswith("head.classifier.") for each in model.loaded.fresh):
        return
    other = create_model(name, num_classes=data.num_classes, in_chans=data.in_chans, image_size=data.image_size)
    classifier_of(model).load_state_dict(classifier_of(other).state_dict())
