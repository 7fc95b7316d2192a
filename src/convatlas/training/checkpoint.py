"""The files of a run folder that hold tensors: the training state, and the weights to be shared."""

import io
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from convatlas.errors import UserError
from convatlas.models.registry import create_model
from convatlas.records import codec, storage
from convatlas.records.run import ModelConfig

FORMAT = 1
"""Version of state.pt; a newer one is refused."""


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write `state.pt`: the whole training state, of tensors, numbers and strings only."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    storage.write_bytes(folder / "state.pt", buffer.getvalue())


def load_state(folder: Path) -> dict[str, Any] | None:
    """Read `state.pt`, onto the CPU; None where none was saved yet. Nothing but tensors, numbers and strings is admitted."""
    path = folder / "state.pt"
    if not path.exists():
        return None
    try:
        with warnings.catch_warnings():
            # torch warns of unusual pickles before it refuses them; the refusal is enough.
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # the unpickler meets damage with whatever its opcodes raise: IndexError, KeyError, EOFError, ...
        raise UserError(f"{path} is damaged or no training state", fix="Start the run anew in another folder.") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is of another version", fix="Use the version of convatlas that wrote it.")
    return state


def save_model(folder: Path, model: nn.Module, config: ModelConfig) -> None:
    """Write `model.safetensors` and `config.json`: what is shared, and enough to use the network elsewhere."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    storage.write_bytes(folder / "model.safetensors", safetensors.torch.save(tensors))
    storage.write_text(folder / "config.json", codec.to_text(config))


def load_model(folder: Path) -> tuple[nn.Module, ModelConfig]:
    """The network of a finished run on the CPU, in evaluation mode, and its configuration. Raises UserError."""
    weights = folder / "model.safetensors"
    if not weights.exists():
        raise UserError(
            f"{folder} holds no finished model", fix=f"Finish it with `convatlas train --resume {folder}`, or check the path."
        )
    config = codec.read(ModelConfig, folder / "config.json")
    model = create_model(config.model, num_classes=config.num_classes, in_chans=config.in_chans, image_size=config.image_size).to(
        memory_format=torch.channels_last
    )  # type: ignore[call-overload]
    try:
        model.load_state_dict(safetensors.torch.load_file(weights))
    except (SafetensorError, RuntimeError, OSError) as error:
        cause = str(error).splitlines()[0]
        raise UserError(f"{weights} does not hold the weights of {config.model}: {cause}", fix="Check the file.") from None
    return model.eval(), config
