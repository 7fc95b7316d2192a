"""Reading files of weights from anywhere: tensors by name, and never code.

`.safetensors` holds nothing but tensors. `.pth`, `.pt`, `.th` and `.bin` are pickles: they are read with `weights_only=True`
and in no other way, and their zip archives are looked at before anything is unpacked.
"""

import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from convatlas.errors import UserError

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Where training scripts keep the weights in a file that holds more."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before each name."""
_BEGINNINGS = {
    b"<": "a web page",
    b"version https://git-lfs": "a pointer of git-lfs: the file itself was not fetched",
    b"\x89HDF\r\n": "HDF5",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "compressed",
    b"{": "JSON",
}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors in a file by name, on the CPU, without wrappers and prefixes. Raises UserError.

    Refused: what is not a file of weights, is damaged, or holds anything that is not a tensor.
    """
    try:
        mode = path.stat().st_mode
        if S_ISDIR(mode):
            raise UserError(f"{path} is a folder", fix=_in_folder(path))
        if not S_ISREG(mode):
            raise UserError(f"{path} is no regular file", fix="Give a .safetensors or .pth file.")
        with path.open("rb") as file:
            beginning = file.read(64)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist", fix="Check the path.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", fix="Check the path and its permissions.") from None
    if not beginning:
        raise UserError(f"{path} is empty", fix="Fetch it again.")
    # A safetensors file begins with the length of its header and the header, which is JSON.
    content = _safetensors(path) if beginning[8:9] == b"{" else _pickled(path, beginning)
    return _without_prefix(_tensors(content, path))


def _in_folder(path: Path) -> str:
    inside = path / "model.safetensors"
    return f"Give the file in it: {inside}." if inside.is_file() else "Give a file of weights."


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}", fix="Fetch it again.") from None


def _pickled(path: Path, beginning: bytes) -> object:
    for mark, what in _BEGINNINGS.items():
        if beginning.lstrip().startswith(mark):
            raise UserError(f"{path} is no file of weights but {what}", fix="Give a .safetensors or .pth file.")
    if beginning.startswith(b"PK"):
        check_archive(path, where=path)
    try:
        with warnings.catch_warnings():
            # torch warns of unusual pickles before it refuses them; the refusal is enough.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler meets damage with whatever its opcodes raise: IndexError, KeyError, EOFError, ...
        raise _refusal(path, error) from None


def _refusal(path: Path, error: Exception) -> UserError:
    """What is wrong with a pickle that torch refused. Its own text recommends to load it all the same, which we do not."""
    found = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
    asked = found[1] if found else _asked_for(path)
    if asked:
        what = f"{path} holds more than weights: it asks for {asked}, which could run code"
        return UserError(what, fix="If you made it, save model.state_dict() instead; if not, do not trust it.")
    return UserError(f"{path} is damaged or no file of weights", fix="Fetch it again, or give a .safetensors or .pth file.")


def _asked_for(path: Path) -> str | None:
    """The first thing that a bare pickle would import, told from its opcodes without running them; None if it is none."""
    texts: list[str] = []
    try:
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "STACK_GLOBAL":
                    return ".".join(texts[-2:]) if len(texts) > 1 else "a name that it hides"
                if opcode.name in ("GLOBAL", "INST"):
                    return ".".join(str(argument).split(" "))
                if opcode.name not in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
                    # Only names that stand right before it are the ones that are asked for.
                    texts = [*texts, argument] if isinstance(argument, str) else []
    except Exception:  # whatever a torn or false pickle makes of the reader
        return None
    return None


def check_archive(file: Path | BinaryIO, *, where: Path) -> None:
    """Refuse archives that unfold, since torch writes them uncompressed, and those whose parts differ from their checksums.

    `where` names the file in messages. Raises UserError.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            assert archive.fp is not None
            members, length = archive.infolist(), archive.fp.seek(0, os.SEEK_END)
            packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
            unfolds = packed or sum(member.file_size for member in members) > length
            damaged = None if unfolds else archive.testzip()
    except Exception as error:  # zipfile meets damage with nearly anything: OverflowError, struct.error, NotImplementedError, ...
        raise UserError(f"{where} is damaged: {error}", fix="Fetch it again.") from None
    if unfolds:
        raise UserError(f"{where} is a compressed archive, which torch does not write", fix="Do not trust it; fetch another.")
    if damaged is not None:
        raise UserError(f"{where} is damaged: the checksum of {damaged} in it is wrong", fix="Fetch it again.")


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not content:
        raise UserError(
            f"{path} holds no tensors by name", fix="Give the state dict of a network: torch.save(model.state_dict(), ...)."
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            what = f"{str(name)[:80]!r} is {type(value).__name__}"
            raise UserError(f"{path} holds something else than tensors: {what}", fix="Save the network's state dict alone.")
        if not _is_plain(value):
            raise UserError(f"{path}: {name} is no plain tensor of numbers", fix="Save the network's state dict alone.")
    return dict(content)


def _is_plain(value: Tensor) -> bool:
    """Whether a tensor is an array of real numbers that are all in the file, none shown many times over (stride 0)."""
    if value.is_nested or value.layout != torch.strided or value.is_quantized or value.is_complex() or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in (*PREFIXES, *PREFIXES):  # twice, since either may be the outer one
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
