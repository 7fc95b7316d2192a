"""Strict loading: every tensor of a file goes to its place in the network, or is named in an error.

Only a new number of classes or of input channels may differ, and is reported.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from convatlas.errors import UserError
from convatlas.layers.network import SMALL_IMAGE, Network
from convatlas.models.keymaps import Layout, family_of, layouts
from convatlas.records.loading import LoadReport
from convatlas.records.weights import Preprocessing

_HEAD = re.compile(r"head\.classifier\.|auxiliary\.\d\.classifier\.")
_AUXILIARY = re.compile(r"auxiliary\.|aux\d\.")
_COUNTER = "num_batches_tracked"
_NAMED = 3
"""How many tensors an error names of each kind."""


@dataclass(frozen=True)
class Match:
    """A file's tensors under our names and in our shapes, with what did not fit; `missing` has our names, the others theirs."""

    layout: Layout
    tensors: dict[str, Tensor]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]]
    """Our name -> (their name, their shape, the shape expected)."""


def match(file: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Match:
    """Find for each of the `expected` tensors (a network's state dict) the one in `file`, in the layout that fits best."""
    family = family_of(expected)
    assert family is not None, "not a network of the atlas"
    if family == "densenet":
        # The oldest files of torchvision have norm.1 for norm1; its own loading renames them too.
        file = {re.sub(r"\.(norm|conv)\.(\d)\.", r".\1\2.", key): value for key, value in file.items()}
    layout = max(layouts(family).values(), key=lambda layout: len(set(layout.rename(expected).values()) & set(file)))
    found, misshapen = {}, {}
    names = layout.rename(expected)
    for ours, theirs in names.items():
        if theirs not in file:
            continue
        shape = layout.reshape(ours, tuple(expected[ours].shape))
        if tuple(file[theirs].shape) == shape:
            found[ours] = file[theirs].reshape(expected[ours].shape)
        else:
            misshapen[ours] = (theirs, tuple(file[theirs].shape), shape)
    missing = tuple(ours for ours in names if ours not in found and ours not in misshapen)
    unexpected = sorted(file.keys() - set(names.values()), key=lambda key: (key.endswith(_COUNTER), key))
    return Match(layout, found, missing, tuple(unexpected), misshapen)


def load(
    network: Network,
    file: Mapping[str, Tensor],
    *,
    where: str,
    name: str,
    classes_chosen: bool,
    channels_chosen: bool = False,
    preprocessing: Preprocessing | None = None,
    licence: str | None = None,
) -> LoadReport:
    """Load a file's tensors into `network`, the variant `name`; all is checked before anything is changed. Raises UserError.

    `where` names the file in messages. `classes_chosen` says that the number of classes was asked for: then a file with
    another number leaves the classifier as it is; otherwise that is an error. `channels_chosen` says the same of the input
    channels, to which the first convolution is then fitted. `preprocessing` and `licence` go into the report.
    """
    if next(network.parameters()).is_meta:
        raise UserError("weights cannot be loaded on the meta device, which holds shapes only", fix="Leave pretrained out there.")
    expected = network.state_dict()
    found = match(file, expected)
    adapted = _take_channels(found, file, expected, where=where, chosen=channels_chosen)
    fresh = _fresh_heads(found, expected, chosen=classes_chosen, where=where, name=name)
    left_out = _left_out(found, expected)
    refuse_misfits(
        where,
        name,
        missing=[key for key in found.missing if key not in fresh and not key.endswith(_COUNTER)],
        unexpected=[key for key in found.unexpected if key not in left_out],
        misshapen={key: shapes for key, shapes in found.misshapen.items() if key not in fresh},
    )
    adapted += check_values(found.tensors, expected, where)
    network.load_state_dict(found.tensors, strict=False)
    trainable = dict(network.named_parameters())
    for what, is_such in (("random, to be trained", True), ("its own fixed numbers, nothing to train", False)):
        if heads := sorted({key.rpartition(".")[0] for key in fresh if (key in trainable) is is_such}):
            adapted.append(f"{', '.join(heads)}: {what}")
    return LoadReport(
        where, found.layout.name, len(found.tensors), tuple(adapted), tuple(fresh), left_out, preprocessing, licence
    )


def _take_channels(
    found: Match, file: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, where: str, chosen: bool
) -> list[str]:
    """Fit the first convolution to another number of channels, if nothing else of it differs; what was done, in words."""
    first = next(iter(expected))
    if first not in found.misshapen:
        return []
    theirs, got, wanted = found.misshapen[first]
    how = _other_channels(got, wanted)
    if how is None:
        return []
    if not chosen:
        raise UserError(
            f"{where} is for images of {got[1]} channels, not {wanted[1]}",
            fix=f"Give in_chans={got[1]} to use it as it is, or in_chans={wanted[1]} to have its first convolution fitted.",
        )
    del found.misshapen[first]
    found.tensors[first] = with_channels(file[theirs], wanted[1])
    return [f"{first}: {how}"]


def with_channels(weight: Tensor, in_chans: int) -> Tensor:
    """A first convolution's weights (O, C, H, W) for images of `in_chans` channels: (O, in_chans, H, W).

    For one channel they are summed: a grey image gives what it gave as three equal channels. For more they are repeated in
    turn and scaled by C / in_chans, so that activations keep their size.
    """
    channels = weight.shape[1]
    if in_chans == 1:
        return weight.sum(1, keepdim=True)
    order = torch.arange(in_chans, device=weight.device) % channels
    return weight[:, order] * (channels / in_chans)


def _other_channels(theirs: tuple[int, ...], ours: tuple[int, ...]) -> str | None:
    """What is done about a first convolution that differs in its input channels only; None if more differs."""
    if len(theirs) != 4 or theirs[0] != ours[0] or theirs[2:] != ours[2:] or theirs[1] == 0:
        return None
    how = f"weights repeated, times {theirs[1]}/{ours[1]}"
    if ours[1] < theirs[1]:
        how = "weights summed" if ours[1] == 1 else f"the first {ours[1]} kept, times {theirs[1]}/{ours[1]}"
    return f"{ours[1]} input channels instead of {theirs[1]}, {how}"


def _fresh_heads(found: Match, expected: Mapping[str, Tensor], *, chosen: bool, where: str, name: str) -> list[str]:
    """Our tensors that keep their own values: classifiers for another number of classes, heads that the file lacks.

    Whole layers: a bias that would fit is not taken without its weight.
    """
    layers = {key.rpartition(".")[0] for key in expected if _HEAD.match(key)}
    other = _for_other_classes(found) & layers
    if other and not chosen:
        _, theirs, ours = found.misshapen[f"{min(other)}.weight"]
        raise UserError(
            f"{where} is for {theirs[0]} classes, and {name} is built for {ours[0]}",
            fix=f"Give num_classes={theirs[0]} to keep its classifier, num_classes={ours[0]} to begin with a new one.",
        )
    if chosen and {key for key in found.missing if key.startswith("head.")} >= {f"{layer}.weight" for layer in _last(expected)}:
        other |= _last(expected)
    fresh = [key for key in expected if key.rpartition(".")[0] in other]
    for key in fresh:
        found.tensors.pop(key, None)
    has_auxiliary = any(key.startswith("auxiliary.") for key in found.tensors)
    return fresh + ([] if has_auxiliary else [key for key in found.missing if key.startswith("auxiliary.")])


def _last(expected: Mapping[str, Tensor]) -> set[str]:
    """The classifier, if the network has one."""
    return {"head.classifier"} & {key.rpartition(".")[0] for key in expected}


def _for_other_classes(found: Match) -> set[str]:
    """The layers of ours whose weight in the file differs in the number of rows, and in nothing else."""
    weights = {key: shapes for key, (_, *shapes) in found.misshapen.items() if key.endswith(".weight")}
    return {
        key.removesuffix(".weight")
        for key, (theirs, ours) in weights.items()
        if len(theirs) == len(ours) == 2 and theirs[1:] == ours[1:]
    }


def _left_out(found: Match, expected: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The file's tensors of parts that the network was asked not to have: the classifier, the auxiliary heads."""
    heads = found.layout.rename([*expected, "head.classifier.weight", "head.classifier.bias"])
    classifier = {heads["head.classifier.weight"], heads["head.classifier.bias"]}
    lacks = family_of(expected) == "googlenet" and not any(key.startswith("auxiliary.") for key in expected)
    return tuple(key for key in found.unexpected if key in classifier or (lacks and _AUXILIARY.match(key) is not None))


def refuse_misfits(
    where: str,
    name: str,
    *,
    missing: list[str],
    unexpected: list[str],
    misshapen: Mapping[str, tuple[str, tuple[int, ...], tuple[int, ...]]],
) -> None:
    """Raise the UserError that counts and names the tensors that do not fit, if there are any."""
    parts = []
    if missing:
        parts.append(f"{len(missing)} tensors are missing ({_some(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} have no place in it ({_some(unexpected)})")
    if misshapen:
        shapes = [f"{theirs} is {_size(got)}, not {_size(wanted)}" for theirs, got, wanted in misshapen.values()]
        parts.append(f"{len(shapes)} have another shape ({_some(shapes)})")
    if not parts:
        return
    fix = "Give a file of that architecture."
    kernels = [(got[-1], wanted[-1]) for key, (_, got, wanted) in misshapen.items() if key.startswith("stem.") and len(got) == 4]
    if not missing and not unexpected and len(kernels) == len(misshapen) and kernels[0][0] != kernels[0][1]:
        fix = f"It was built for images of up to {SMALL_IMAGE} pixels: give image_size, such as image_size=32."
        if kernels[0][0] > kernels[0][1]:
            why = f"up to {SMALL_IMAGE} pixels another stem is built than that of the published weights"
            fix = f"Leave --image-size out (in Python image_size): {why}."
    raise UserError(f"{where} does not hold the weights of {name}: {'; '.join(parts)}", fix=fix)


def _some(names: list[str]) -> str:
    return ", ".join(name[:80] for name in names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"


def check_values(tensors: dict[str, Tensor], expected: Mapping[str, Tensor], where: str) -> list[str]:
    """Refuse kinds of numbers that would be cast in silence, and values that no training gives; what is cast, in words.

    Counters that were cast with the rest (`tensor.half()` over a state dict) become whole numbers again, in `tensors`.
    """
    kinds = set()
    for key, tensor in tensors.items():
        if key.endswith(_COUNTER):
            tensors[key] = tensor.to(torch.int64)
            continue
        if tensor.is_floating_point() != expected[key].is_floating_point():
            raise UserError(f"{where}: {key} has numbers of type {tensor.dtype}", fix="Give a file of floating-point weights.")
        cast = tensor.to(expected[key].dtype)
        # The sum is quick to take, and not finite if any value is not.
        if not bool(torch.isfinite(cast.sum(dtype=torch.float64))) and (bad := int((~torch.isfinite(cast)).sum())):
            raise UserError(
                f"{where}: {key} has {bad} values that are NaN or infinite", fix="Give another file; this one is spoilt."
            )
        if cast.dtype != tensor.dtype:
            kinds.add(f"numbers of type {tensor.dtype} taken as {cast.dtype}".replace("torch.", ""))
    return sorted(kinds)
