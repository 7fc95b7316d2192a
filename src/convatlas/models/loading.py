"""Strict loading: every tensor of a file goes to its place in the network, or is named in an error.

Only a new number of classes or of input channels may differ, and is reported.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from convatlas.errors import UserError
from convatlas.layers.network import Network
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
    unexpected = tuple(sorted((key for key in file if key not in names.values()), key=lambda key: (key.endswith(_COUNTER), key)))
    return Match(layout, found, missing, unexpected, misshapen)


def load(
    network: Network,
    file: Mapping[str, Tensor],
    *,
    where: str,
    name: str,
    classes_chosen: bool,
    preprocessing: Preprocessing | None = None,
    licence: str | None = None,
) -> LoadReport:
    """Load a file's tensors into `network`, the variant `name`; all is checked before anything is changed. Raises UserError.

    `where` names the file in messages. `classes_chosen` says that the number of classes was asked for: then a file with
    another number leaves the classifier as it is; otherwise that is an error. `preprocessing` and `licence` go into the report.
    """
    expected = network.state_dict()
    found = match(file, expected)
    adapted, misshapen = [], dict(found.misshapen)
    first = next(iter(expected))
    if first in misshapen and (changed := _other_channels(misshapen[first][1:])):
        theirs, _, wanted = misshapen.pop(first)
        found.tensors[first] = with_channels(file[theirs], wanted[1])
        adapted.append(f"{first}: {changed}")
    fresh = _fresh_heads(found, misshapen, classes_chosen=classes_chosen, where=where, name=name)
    for key in fresh:
        misshapen.pop(key, None)
    left_out = _left_out(found, expected)
    refuse_misfits(
        where,
        name,
        missing=[key for key in found.missing if key not in fresh and not key.endswith(_COUNTER)],
        unexpected=[key for key in found.unexpected if key not in left_out],
        misshapen=misshapen,
    )
    _check_values(found.tensors, expected, where)
    network.load_state_dict(found.tensors, strict=False)
    if heads := sorted({key.rpartition(".")[0] for key in fresh}):
        adapted.append(f"{', '.join(heads)}: random, to be trained")
    return LoadReport(
        where, found.layout.name, len(found.tensors), tuple(adapted), tuple(fresh), left_out, preprocessing, licence
    )


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


def _other_channels(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> str | None:
    """What is done about a first convolution that differs in its input channels only; None if more differs."""
    theirs, ours = shapes
    if len(theirs) != 4 or theirs[0] != ours[0] or theirs[2:] != ours[2:]:
        return None
    how = "summed" if ours[1] == 1 else f"repeated, times {theirs[1]}/{ours[1]}"
    return f"{ours[1]} input channels instead of {theirs[1]}, weights {how}"


def _fresh_heads(
    found: Match, misshapen: Mapping[str, object], *, classes_chosen: bool, where: str, name: str
) -> tuple[str, ...]:
    """Our tensors that stay random: classifiers for another number of classes, auxiliary heads that the file lacks."""
    parts = {key.rpartition(".")[0] for key in misshapen if _HEAD.match(key)}
    heads = [key for key in misshapen if key.rpartition(".")[0] in parts & _for_other_classes(found)]
    if heads and not classes_chosen:
        _, theirs, ours = found.misshapen[heads[0]]
        raise UserError(
            f"{where} is for {theirs[0]} classes, and {name} is built for {ours[0]}",
            fix=f"Give num_classes={theirs[0]} to keep its classifier, num_classes={ours[0]} to begin with a new one.",
        )
    auxiliary = [key for key in found.missing if key.startswith("auxiliary.")]
    has_some = any(key.startswith("auxiliary.") for key in found.tensors)
    return (*heads, *(() if has_some else auxiliary))


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
    has_auxiliary = any(key.startswith("auxiliary.") for key in expected)
    return tuple(
        key for key in found.unexpected if key in classifier or (_AUXILIARY.match(key) is not None and not has_auxiliary)
    )


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
    if not missing and not unexpected and all(key.startswith("stem.") for key in misshapen):
        fix = "Leave image_size out: up to 64 pixels another stem is built than that of the published weights."
    raise UserError(f"{where} does not hold the weights of {name}: {'; '.join(parts)}", fix=fix)


def _some(names: list[str]) -> str:
    return ", ".join(name[:80] for name in names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _check_values(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Refuse kinds of numbers that would be cast in silence, and values that no training gives."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() != expected[key].is_floating_point():
            raise UserError(f"{where}: {key} has numbers of type {tensor.dtype}", fix="Give a file of floating-point weights.")
        # The sum is quick to take, and not finite if any value is not.
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.sum(dtype=torch.float64))):
            bad = int((~torch.isfinite(tensor)).sum())
            if bad:
                fix = "Its training failed; give another file."
                raise UserError(f"{where}: {key} has {bad} values that are NaN or infinite", fix=fix)
