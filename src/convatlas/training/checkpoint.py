"""The files of a run folder that hold tensors: the training states, and the weights to be shared.

States are numbered, and none is written over: `state-1.pt`, `state-2.pt` and so on. A new one counts once `manifest.json` has its
SHA-256; only then all but the one before it are removed. So whatever the moment at which the power goes, the last state that
counted is there, and if its file is damaged later, the one before it.
"""

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from convatlas.data.pictures import INTERPOLATIONS
from convatlas.errors import UserError, first_line
from convatlas.layers.network import Network
from convatlas.models.checkpoints import check_archive
from convatlas.models.configuration import is_user_file
from convatlas.models.loading import check_values, refuse_misfits
from convatlas.models.registry import create_model
from convatlas.records import codec, manifest, storage
from convatlas.records.finished import not_finished
from convatlas.records.run import ModelConfig, Recipe
from convatlas.training.prepare import check_code

FORMAT = 1
"""Version of the states; a newer one is refused."""
KEPT = 2
"""States that are kept: the last one, and the one before it, should the last be damaged."""
FIRST_VERSION = "state.pt"
"""The only state of a run folder, once."""
LARGEST_IMAGE = 4096
"""Pixels a side."""
_STATE = re.compile(r"state-(\d{1,9})\.pt")
Note = Callable[[str], None]


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the whole training state, of tensors, numbers and strings only. It counts once this returns."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    content = buffer.getvalue()
    there, counted = _numbers(folder), _counted(folder)
    name = _name(max([*there, *counted], default=0) + 1)
    storage.write_bytes(folder / name, content)
    old = {*there, *counted} - {*[number for number in counted if number in there][1 - KEPT :]}
    manifest.write(folder, manifest.entry_of(name, content), without=tuple(map(_name, old)))
    for number in old:
        storage.remove(folder / _name(number))
    storage.remove(folder / FIRST_VERSION)


def drop_states(folder: Path) -> None:
    """Remove the states of a run that is finished for good."""
    _drop(folder, [_name(number) for number in {*_numbers(folder), *_counted(folder)}])


def drop_weights(folder: Path) -> None:
    """Remove the weights of a finished run of which the figures alone are wanted."""
    _drop(folder, ["model.safetensors"])


def _drop(folder: Path, names: list[str]) -> None:
    if not any((folder / name).exists() for name in names):
        return
    manifest.write(folder, without=tuple(names))
    for name in names:
        storage.remove(folder / name)


def has_state(folder: Path) -> bool:
    """Whether there is a state to go on from."""
    return bool(_numbers(folder)) or (folder / FIRST_VERSION).exists()


def forget_damaged(folder: Path) -> None:
    """Take states that are not what was written off the manifest: then none of them is kept in place of one that is intact."""
    try:
        known = manifest.read(folder)
    except UserError:
        return  # it is written anew with the next state
    counted = {_name(number) for number in _counted(folder)} & {_name(number) for number in _numbers(folder)}
    entries = [] if known is None else [each for each in known.files if each.name in counted]
    damaged = tuple(each.name for each in entries if not each.fits(_content(folder / each.name)))
    if damaged:
        manifest.write(folder, without=damaged)


def _content(path: Path) -> bytes:
    """What a file has that may not be readable."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def load_state(folder: Path, *, note: Note) -> dict[str, Any] | None:
    """The newest training state that is not damaged, on the CPU; None where none was saved yet.

    `note` is told of each one that is damaged. Nothing but tensors, numbers and strings is admitted. Raises UserError if all are
    damaged.
    """
    if not has_state(folder):
        return None
    for path, content in _intact(folder, note):
        try:
            state = _unpacked(path, content)
        except UserError as error:
            note(f"warning: {error.what}; it is left out")
            continue
        if state["format"] != FORMAT:
            raise UserError(f"{path} is of another version", fix="Use the version of convatlas that wrote it.")
        return state
    raise UserError(f"no training state in {folder} is intact", fix="Start the run anew in another folder.")


def _intact(folder: Path, note: Note) -> Iterator[tuple[Path, bytes]]:
    """The states that are what was written, newest first."""
    try:
        known = manifest.read(folder)
    except UserError as error:
        note(f"warning: {error.what}; states are judged by the checksums within them")
        known = None
    for number in sorted(_numbers(folder), reverse=True):
        path = folder / _name(number)
        entry = None if known is None else known.entry(path.name)
        if known is not None and entry is None:
            continue  # the power went before it counted
        try:
            content = path.read_bytes()
        except OSError as error:
            note(f"warning: {path} cannot be read: {error.strerror}; it is left out")
            continue
        if entry is not None and not entry.fits(content):
            note(f"warning: {path} is damaged: its SHA-256 is not the one in {manifest.FILE}; it is left out")
            continue
        yield path, content
    if (folder / FIRST_VERSION).exists():
        yield folder / FIRST_VERSION, (folder / FIRST_VERSION).read_bytes()


def _unpacked(path: Path, content: bytes) -> dict[str, Any]:
    check_archive(io.BytesIO(content), where=path)
    try:
        with warnings.catch_warnings():
            # torch warns of unusual pickles before it refuses them; the refusal is enough.
            warnings.simplefilter("ignore")
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # the unpickler meets damage with whatever its opcodes raise: IndexError, KeyError, EOFError, ...
        raise UserError(f"{path} is damaged or no training state", fix="Start the run anew in another folder.") from None
    if not isinstance(state, dict) or "format" not in state:
        raise UserError(f"{path} is no training state", fix="Start the run anew in another folder.")
    return state


def _name(number: int) -> str:
    return f"state-{number}.pt"


def _numbers(folder: Path) -> list[int]:
    """Of the states that are there, ascending."""
    return _numbers_in(path.name for path in folder.glob("state-*.pt"))


def _counted(folder: Path) -> list[int]:
    """Of the states that count, ascending; none if the manifest is damaged."""
    try:
        known = manifest.read(folder)
    except UserError:
        return []
    return [] if known is None else _numbers_in(each.name for each in known.files)


def _numbers_in(names: Iterable[str]) -> list[int]:
    return sorted(int(found[1]) for name in names if (found := _STATE.fullmatch(name)) is not None)


def save_model(folder: Path, model: nn.Module, config: ModelConfig) -> None:
    """Write `model.safetensors` and `config.json`: what is shared, and enough to use the network elsewhere."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    weights = safetensors.torch.save(tensors)
    config = replace(config, weights_sha256=hashlib.sha256(weights).hexdigest())
    contents = {"model.safetensors": weights, "config.json": codec.to_text(config).encode()}
    for name, content in contents.items():
        storage.write_bytes(folder / name, content)
    manifest.write(folder, *(manifest.entry_of(name, content) for name, content in contents.items()))


def save_config(folder: Path, config: ModelConfig) -> None:
    """Write `config.json` anew beside the weights that are there."""
    content = codec.to_text(config).encode()
    manifest.write(folder, without=("config.json",))  # in between neither the old one nor the new one is taken for damaged
    storage.write_bytes(folder / "config.json", content)
    manifest.write(folder, manifest.entry_of("config.json", content))


def load_model(folder: Path) -> tuple[nn.Module, ModelConfig]:
    """The network of a finished run on the CPU, in evaluation mode, and its configuration. Raises UserError.

    A network of the user's own is made by its Python file, which must be trusted (`user_files.trust`) and unchanged.
    """
    weights = folder / "model.safetensors"
    if not weights.exists():
        raise not_finished(folder)
    config = load_config(folder)
    if config.weights_sha256 is not None and not (folder / manifest.FILE).exists():
        what = f"{folder} has no {manifest.FILE}, by which its files are checked"
        raise UserError(what, fix="Copy it along with the weights.")
    if is_user_file(config.model) and (folder / "recipe.json").exists():
        check_code(replace(codec.read(Recipe, folder / "recipe.json"), model=config.model), where=str(folder))
    with torch.device("meta"):
        expected = _network(config).state_dict()
    tensors = _tensors(weights, expected, config)
    model = _network(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.load_state_dict(tensors)
    return model.eval(), config


def _network(config: ModelConfig) -> Network:
    """The network that the configuration names, with weights of its own."""
    return create_model(config.model, num_classes=config.num_classes, in_chans=config.in_chans, image_size=config.image_size)


def load_config(folder: Path) -> ModelConfig:
    """What `config.json` says, if it fits together. Raises UserError."""
    path = folder / "config.json"
    if not path.exists():
        raise not_finished(folder)
    content = manifest.checked(path)
    config = codec.from_text(ModelConfig, content.decode("utf-8-sig", "replace"), where=str(path))
    fits = (
        len(config.classes) == config.num_classes
        and len(config.mean) == len(config.std) == config.in_chans
        and config.in_chans in (1, 3)
        and all(each > 0 for each in config.std)
        and 1 <= config.image_size <= (config.resize or config.image_size) <= LARGEST_IMAGE
        and config.temperature > 0
        and config.interpolation in INTERPOLATIONS
    )
    if not fits:
        raise UserError(
            f"{path} does not fit together: classes, channels, mean, std and image size", fix="Put back the original."
        )
    return config


def _tensors(weights: Path, expected: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The tensors in the file, each of which must be there and fit one of the `expected`, and hold numbers only."""
    name, content = config.model, manifest.checked(weights)
    if config.weights_sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise UserError(f"{weights} is not what config.json belongs to: its SHA-256 is another", fix="Put both back.")
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{weights} does not hold the weights of {name}: {first_line(error)}", fix="Check the file.") from None
    sizes = {key: (key, tuple(tensors[key].shape), tuple(expected[key].shape)) for key in expected if key in tensors}
    refuse_misfits(
        str(weights),
        name,
        missing=[key for key in expected if key not in tensors],
        unexpected=[key for key in tensors if key not in expected],
        misshapen={key: value for key, value in sizes.items() if value[1] != value[2]},
    )
    check_values(tensors, expected, str(weights))
    return tensors
