"""A network from a Python file of the user's: `path/to/file.py:factory`."""

import difflib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from torch import nn

from convatlas.errors import UserError


def is_user_file(name: str) -> bool:
    """Whether a name means a factory in a file, and no variant of the atlas."""
    return ".py:" in name or name.endswith(".py")


def model_from_file(name: str) -> nn.Module:
    """The network that `factory()` in `path/to/file.py:factory` makes; a class will do. Runs the file. Raises UserError."""
    path_name, colon, factory_name = name.rpartition(":")
    if not colon or not factory_name.isidentifier():
        raise UserError(f"{name!r} names no factory", fix="Name one after a colon, such as net.py:make_model.")
    path = Path(path_name)
    if not path.is_file():
        raise UserError(f"{path} is no file", fix="Check the path.")
    found = vars(_imported(path))
    if factory_name not in found:
        known = [each for each, value in found.items() if callable(value) and not each.startswith("_")]
        near = difflib.get_close_matches(factory_name, known, n=2)
        raise UserError(
            f"{path} has no {factory_name!r}",
            fix=f"Did you mean {' or '.join(near)}?" if near else "Name a function or class of it.",
        )
    factory = found[factory_name]
    if isinstance(factory, nn.Module):
        return factory  # made already
    try:
        model = factory()
    except Exception as error:  # the user's own code may raise anything
        raise UserError(f"{factory_name}() of {path} failed: {_said(error)}", fix="It must work without arguments.") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{factory_name}() of {path} gives a {type(model).__name__}", fix="It must give a torch.nn.Module.")
    return model


def _imported(path: Path) -> ModuleType:
    """The file as a module; what lies beside it can be imported by it, as when it is run."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file", fix="Its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code may raise anything
        raise UserError(f"{path} cannot be run: {_said(error)}", fix="Mend the file.") from error
    finally:
        sys.path.remove(folder)
    return module


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}".rstrip(": ")
