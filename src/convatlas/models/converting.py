"""Files of weights from one library's names to another's, with the network known and every tensor accounted for."""

import io
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from convatlas.errors import UserError, unknown_name
from convatlas.layers.network import SMALL_IMAGE, Network
from convatlas.models.checkpoints import read_checkpoint
from convatlas.models.keymaps import counterpart
from convatlas.models.loading import Match, check_values, match, refuse_misfits
from convatlas.models.pretrained import file_classes, in_layout
from convatlas.models.registry import create_model, find_variant
from convatlas.records import codec, storage
from convatlas.records.loading import Conversion
from convatlas.records.run import ModelConfig
from convatlas.records.weights import Preprocessing

LAYOUTS = ("convatlas", "torchvision", "timm")
SUFFIXES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True)
class _Source:
    """A file of weights, and what is known of its network: the variant, and the image size if a run tells it."""

    file: Path
    model: str
    image_size: int | None
    preprocessing: Preprocessing | None = None


def convert(source: Path, *, to: str, out: Path, model: str | None = None, overwrite: bool = False) -> Conversion:
    """Write the weights in `source` (a file in any known layout, or a finished run's folder) to `out` in the layout `to`.

    `model` names the variant; a run knows its own. Raises UserError, and then writes nothing: for tensors that do not fit, for
    variants that the other library does not have, and where `out` exists unless `overwrite`.
    """
    if to not in LAYOUTS:
        raise unknown_name("layout", to, LAYOUTS, where=f"There is {', '.join(LAYOUTS)}.")
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out} ends in {out.suffix or 'nothing'}", fix=f"End it in {' or '.join(SUFFIXES)}.")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists", fix="Choose another name, or add --force.")
    known = _describe(source, model)
    if to != "convatlas" and counterpart(known.model, to) is None:
        raise UserError(f"{to} has no network that computes what {known.model} does", fix="Keep it as it is: --to convatlas.")
    found, network = _fit(known)
    if to != "convatlas" and not _has_large_stem(known.model, network):
        raise UserError(
            f"this {known.model} has the stem for images of up to {SMALL_IMAGE} pixels, which {to} does not build",
            fix="Keep it as it is: --to convatlas.",
        )
    tensors = {key: found.tensors.get(key, torch.tensor(0)) for key in network.state_dict()}
    _write(in_layout(tensors, to), out)
    classes, channels = _numbers(network)
    how = _how_to_load(known, network, to, out)
    return Conversion(
        known.model, str(source), found.layout.name, to, str(out), len(tensors), classes, channels, known.preprocessing, how
    )


def _describe(source: Path, model: str | None) -> _Source:
    if not source.exists():
        raise UserError(f"{source} does not exist", fix="Give a run's folder or a file of weights.")
    folder = source if source.is_dir() else source.parent
    file = source / "model.safetensors" if source.is_dir() else source
    config = folder / "config.json"
    if file.name == "model.safetensors" and (folder / "recipe.json").is_file() and config.is_file():
        own = codec.read(ModelConfig, config)
        if model not in (None, own.model):
            raise UserError(f"{source} is a run of {own.model}, not of {model}", fix="Leave --model out.")
        return _Source(file, own.model, own.image_size, own.preprocessing)
    if source.is_dir():
        raise UserError(f"{source} is no finished run", fix="Give a run's folder or a file of weights.")
    if model is None:
        raise UserError(f"{source} does not say which network it is for", fix="Name it, such as --model resnet50.")
    find_variant(model)
    return _Source(source, model, None)


def _fit(known: _Source) -> tuple[Match, Network]:
    """The file's tensors under our names, and a network on the meta device into which they fit. Raises UserError."""
    file = read_checkpoint(known.file)
    variant = find_variant(known.model)
    with torch.device("meta"):
        base = create_model(known.model, in_chans=variant.in_chans, image_size=known.image_size)
        classes, channels = file_classes(file, base.state_dict())
        sizes = [known.image_size] if known.image_size is not None else [variant.image_size, SMALL_IMAGE // 2]
        fits = []
        for size in sizes:
            network = create_model(known.model, num_classes=classes or 0, in_chans=channels or variant.in_chans, image_size=size)
            _drop_absent_auxiliary(network, file)
            fits.append((match(file, network.state_dict()), network))
    found, network = min(fits, key=lambda fit: len(fit[0].misshapen) + len(fit[0].missing))
    refuse_misfits(
        str(known.file),
        known.model,
        missing=[key for key in found.missing if not key.endswith("num_batches_tracked")],
        unexpected=list(found.unexpected),
        misshapen=found.misshapen,
    )
    check_values(found.tensors, network.state_dict(), str(known.file))
    return found, network


def _drop_absent_auxiliary(network: Network, file: dict[str, Tensor]) -> None:
    """Leave out GoogLeNet's auxiliary heads if the file has none."""
    auxiliary = dict(network.named_children()).get("auxiliary")
    if isinstance(auxiliary, torch.nn.ModuleList) and not any(key.startswith(("aux1.", "auxiliary.")) for key in file):
        network.add_module("auxiliary", torch.nn.ModuleList())


def _has_large_stem(name: str, network: Network) -> bool:
    """Whether the network has the stem that is built for images of the published size."""
    with torch.device("meta"):
        published = create_model(name).stem.state_dict()
    ours = network.stem.state_dict()
    return ours.keys() == published.keys() and all(ours[key].shape[2:] == published[key].shape[2:] for key in ours)


def _numbers(network: Network) -> tuple[int, int]:
    """Classes and input channels."""
    tensors = network.state_dict()
    head = tensors.get("head.classifier.weight")
    return (0 if head is None else head.shape[0]), next(iter(tensors.values())).shape[1]


def _write(tensors: dict[str, Tensor], out: Path) -> None:
    if out.suffix == ".safetensors":
        # Reshaped tensors share memory with what they came from, which safetensors refuses to write twice.
        content = safetensors.torch.save({key: tensor.contiguous().clone() for key, tensor in tensors.items()})
    else:
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        content = buffer.getvalue()
    storage.write_bytes(out, content)


def _how_to_load(known: _Source, network: Network, to: str, out: Path) -> tuple[str, ...]:
    """The Python that loads the file `out`."""
    classes, channels = _numbers(network)
    options = f", num_classes={classes}"
    if to != "torchvision" and channels != 3:
        options += f", in_chans={channels}"
    if to == "convatlas":
        if not _has_large_stem(known.model, network):
            options += f", image_size={known.image_size or SMALL_IMAGE // 2}"
        return ("import convatlas", f"model = convatlas.create_model({known.model!r}, pretrained={str(out)!r}{options}).eval()")
    if known.model == "googlenet":
        options += f", aux_logits={len(network.auxiliary_parameters()) > 0}, init_weights=False"
    expression = counterpart(known.model, to)
    assert expression is not None
    reading = f"safetensors.torch.load_file({str(out)!r})"
    if out.suffix != ".safetensors":
        reading = f"torch.load({str(out)!r}, weights_only=True)"
    modules = f"import {reading.partition('.load')[0]}, {to}"
    return modules, f"model = {expression.removesuffix(')')}{options})", f"model.load_state_dict({reading})", "model.eval()"
