"""Weights from where people have them, into our networks and out again: published files, own files, the Hugging Face hub."""

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from convatlas.errors import UserError
from convatlas.layers.network import Network
from convatlas.models.checkpoints import read_checkpoint
from convatlas.models.keymaps import family_of, layouts
from convatlas.models.loading import load
from convatlas.models.published import SOURCES, find_weights, locate, obtain, obtain_from_hub, published
from convatlas.records import codec
from convatlas.records.loading import LoadReport
from convatlas.records.run import ModelConfig
from convatlas.records.weights import Preprocessing

HUB = "hf-hub:"
_CHOICES = f"Give default (in Python True), a path, {', '.join(SOURCES)} or {HUB}owner/name."
Choice = bool | str | PathLike[str]
"""What `create_model(pretrained=)` takes: True (the default weights), a source such as "torchvision" or "timm", "source:tag",
"hf-hub:owner/name", or the path of a file."""


@dataclass(frozen=True)
class _Found:
    """A file of weights, what it is called in messages, and what its publisher says of it."""

    path: Path
    where: str
    preprocessing: Preprocessing | None = None
    licence: str | None = None


def load_pretrained(network: Network, name: str, choice: Choice, *, classes_chosen: bool, channels_chosen: bool) -> LoadReport:
    """Load the weights that `choice` names into `network`, the variant `name`. Raises UserError; then nothing was changed.

    `classes_chosen` and `channels_chosen` say that the caller asked for these numbers, so that others in the file are no mistake.
    """
    found = _find(name, choice)
    return load(
        network,
        read_checkpoint(found.path),
        where=found.where,
        name=name,
        classes_chosen=classes_chosen,
        channels_chosen=channels_chosen,
        preprocessing=found.preprocessing,
        licence=found.licence,
    )


def _find(name: str, choice: Choice) -> _Found:
    if choice is True:
        return _published(name, True)
    text = fspath(choice) if isinstance(choice, (str, PathLike)) else choice
    if not isinstance(text, str) or not text:
        raise UserError(f"pretrained is {choice!r}", fix=_CHOICES)
    if text.partition(":")[0] in SOURCES:
        return _published(name, text)
    if text.startswith(HUB):
        path, config = obtain_from_hub(text.removeprefix(HUB))
        return _Found(path, text, _hub_preprocessing(config))
    path = Path(os.path.expanduser(text))  # noqa: PTH111, since Path's raises where there is no such home
    if isinstance(choice, str) and not os.path.lexists(path):
        near = difflib.get_close_matches(text, [*SOURCES, *(row.name for row in published(name))], n=2)
        guess = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"{text!r} is neither a file nor a source of weights", fix=f"{guess}{_CHOICES}")
    return _Found(path, str(path), _run_preprocessing(path, name))


def _published(name: str, choice: Literal[True] | str) -> _Found:
    weights = find_weights(name, choice)
    try:
        return _Found(obtain(weights), weights.name, weights.preprocessing, weights.licence)
    except UserError as error:
        here = [row.name for row in published(name) if row != weights and locate(row) is not None]
        if not here:
            raise
        other = f"{here[0]}, which is on this machine (--weights {here[0]}, in Python pretrained={here[0]!r})"
        raise UserError(error.what, fix=f"{error.fix} Or take {other}.") from None


def _run_preprocessing(path: Path, name: str) -> Preprocessing | None:
    """What the run's configuration beside its weights says, if the file is a run's."""
    if path.name != "model.safetensors" or not path.with_name("config.json").is_file():
        return None
    try:
        own = codec.read(ModelConfig, path.with_name("config.json"))
    except UserError:
        return None  # another program's
    return own.preprocessing if own.model == name else None


def _hub_preprocessing(config: Path | None) -> Preprocessing | None:
    """What a repository of timm's kind says about its input; None where it says nothing that is understood."""
    try:
        said: dict[str, Any] = json.loads(config.read_text(encoding="utf-8")) if config is not None else {}
        said = said["pretrained_cfg"]
        crop = int((said.get("test_input_size") or said["input_size"])[-1])
        share = float(said.get("test_crop_pct") or said["crop_pct"])
        return Preprocessing(
            mean=tuple(map(float, said["mean"])),
            std=tuple(map(float, said["std"])),
            resize=None if said.get("crop_mode") == "squash" else int(crop / share),
            crop=crop,
            interpolation=str(said["interpolation"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ZeroDivisionError):
        return None


def to_torchvision(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of ours under torchvision's names and in its shapes, for `torchvision.models.<name>.load_state_dict`.

    Names alone cannot tell `resnet50` from `resnet50.paper`, which computes something else: `convatlas convert` refuses
    variants that torchvision does not have. Raises UserError for families that it does not have at all.
    """
    return in_layout(state_dict, "torchvision")


def to_timm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of ours under timm's names and in its shapes, for `timm.create_model(<name>).load_state_dict`.

    As with `to_torchvision`. Some EfficientNets must be built with `bn_eps=1e-3` in timm (see `keymaps.counterpart`).
    """
    return in_layout(state_dict, "timm")


def in_layout(state_dict: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """A state dict of ours in the layout called `name`. Raises UserError."""
    family = family_of(state_dict) if isinstance(state_dict, Mapping) else None
    if family is None:
        raise UserError("these are not the tensors of a network of the atlas", fix="Give a network's state_dict().")
    known = layouts(family)
    if name not in known:
        raise UserError(f"{name} has no networks of the family {family}", fix=f"There is {' and '.join(known)}.")
    names = known[name].rename(state_dict)
    return {names[key]: tensor.reshape(known[name].reshape(key, tuple(tensor.shape))) for key, tensor in state_dict.items()}


def file_classes(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[int | None, int | None]:
    """Number of classes and of input channels of the network whose weights a file holds, told by its tensors' shapes.

    `expected` is the state dict of the same variant with any numbers. None where the tensor is not found.
    """
    family = family_of(expected)
    assert family is not None
    first = next(iter(expected))
    classes, channels = None, None
    for layout in layouts(family).values():
        names = layout.rename(expected)
        head, conv = tensors.get(names["head.classifier.weight"]), tensors.get(names[first])
        classes = head.shape[0] if head is not None and head.dim() else classes
        channels = conv.shape[1] if conv is not None and conv.dim() == 4 else channels
    return classes, channels
