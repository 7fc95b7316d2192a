"""Weights from where people have them, into our networks and out again: published files, own files, the Hugging Face hub."""

import json
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from torch import Tensor

from convatlas.errors import UserError
from convatlas.layers.network import Network
from convatlas.models.checkpoints import read_checkpoint
from convatlas.models.keymaps import Layout, family_of, layouts
from convatlas.models.loading import load
from convatlas.models.published import SOURCES, find_weights, obtain, obtain_from_hub
from convatlas.records.loading import LoadReport
from convatlas.records.weights import Preprocessing, PublishedWeights

HUB = "hf-hub:"
Choice = bool | str | PathLike[str]
"""What `create_model(pretrained=)` takes: True (the default weights), a source such as "torchvision" or "timm", "source:tag",
"hf-hub:owner/name", or the path of a file."""


def load_pretrained(network: Network, name: str, choice: Choice, *, classes_chosen: bool) -> LoadReport:
    """Load the weights that `choice` names into `network`, the variant `name`. Raises UserError; then nothing was changed.

    `classes_chosen` says that the caller asked for the number of classes, so that another one in the file is no mistake.
    """
    text = fspath(choice) if not isinstance(choice, bool) else ""
    published: PublishedWeights | None = None
    preprocessing, licence = None, None
    if choice is True or text.partition(":")[0] in SOURCES:
        published = find_weights(name, True if choice is True else text)
        path, where = obtain(published), published.name
        preprocessing, licence = published.preprocessing, published.licence
    elif text.startswith(HUB):
        path, config = obtain_from_hub(text.removeprefix(HUB))
        where, preprocessing = text, _hub_preprocessing(config)
    else:
        path = Path(text).expanduser()
        where = str(path)
        if not path.exists():
            sources = f"{', '.join(SOURCES)} or {HUB}owner/name"
            raise UserError(
                f"pretrained={text!r} is neither a file nor a source of weights", fix=f"Give a path, True, {sources}."
            )
    tensors = read_checkpoint(path)
    return load(
        network,
        tensors,
        where=where,
        name=name,
        classes_chosen=classes_chosen,
        preprocessing=preprocessing,
        licence=licence,
    )


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


def in_layout(state_dict: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """A state dict of ours in another layout. Raises UserError."""
    found = find_layout(state_dict, layout)
    names = found.rename(state_dict)
    return {names[key]: tensor.reshape(found.reshape(key, tuple(tensor.shape))) for key, tensor in state_dict.items()}


def find_layout(state_dict: Mapping[str, object], layout: str) -> Layout:
    """The layout of that name for the family whose state dict this is. Raises UserError."""
    family = family_of(state_dict)
    if family is None:
        raise UserError("these are not the tensors of a network of the atlas", fix="Give the state_dict() of one.")
    known = layouts(family)
    if layout not in known:
        raise UserError(f"{layout} has no networks of the family {family}", fix=f"There is {' and '.join(known)}.")
    return known[layout]


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
