"""A network from a Python file of the user's: `path/to/file.py:factory`. Only files that the user named are ever run."""

import difflib
import importlib.abc
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from convatlas.errors import UserError, unknown_name
from convatlas.layers.network import Network, Request
from convatlas.models.alterations import alter, alter_dropout, as_before
from convatlas.models.configuration import factory_of, parsed
from convatlas.models.configuration import is_user_file as is_user_file
from convatlas.models.configured import check_parameters
from convatlas.models.settings import ARGUMENTS

FAMILY = "your own"
"""The family of such networks."""
DEFAULTS = {"num_classes": 1000, "in_chans": 3, "image_size": 224}
"""What a factory may take by these names, and what it is given if it takes one without a default and nothing else is said."""
_TRUSTED: set[Path] = set()
_RUN: dict[tuple[Path, str], ModuleType] = {}


# Trust


def trust(path: Path) -> None:
    """Let networks be made by the Python file `path`: the user named it in this very command."""
    _TRUSTED.add(path.resolve())


def trusted_file(path: Path) -> Path:
    """The file that stands for `path` in a model's name: itself, or the one trusted file of its name. Raises UserError.

    So that a run folder that came from elsewhere finds its code where `--code` says it is.
    """
    if path.resolve() in _TRUSTED:
        if not path.is_file():
            raise UserError(f"{path} is no file", fix="Check the path.")
        return path
    same = [each for each in _TRUSTED if each.name == path.name and each.is_file()]
    if len(same) == 1:
        return same[0]
    raise UserError(
        f"the network is made by the Python file {path}, which would be run and was not named in this command",
        fix=f"If you trust it, name it with --code {path}.",
    )


def code_of(name: str) -> str:
    """The SHA-256 of the file that makes the network `name`, in hexadecimal. Raises UserError."""
    return sha256(_content(trusted_file(factory_of(name)[0]))).hexdigest()


def codes_of(names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of the files of those names that mean a user's own network. Raises UserError."""
    return {name: code_of(name) for name in names if is_user_file(name)}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}", fix="Check the path.") from None


# The network


class OwnNetwork(Network):
    """A network of the user's in the form of the atlas: all of it is one stage. (N, C, H, W) -> (N, num_classes)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Identity()
        self.stages = nn.Sequential(module)
        self.head = nn.Identity()


def model_from_file(name: str, **asked: int | None) -> nn.Module:
    """The network that the factory in `path/to/file.py:factory{settings}` makes, as it makes it, altered as the settings say.

    `asked` is what the caller wants of DEFAULTS: the factory is given those that it takes. A module that is made already will do.
    Runs the file. Raises UserError.
    """
    found = found_in_file(name)
    if isinstance(found, nn.Module):
        network = OwnNetwork(deepcopy(found))
    else:
        network = OwnNetwork(_made(found, arguments_of(found, asked, name), name))
    _alter(network, name)
    return network.stages[0]


def build_own(name: str, request: Request) -> Network:
    """The same as a network that can be trained: a new one each time. Raises UserError.

    On the meta device a factory that needs values makes it on the CPU.
    """
    found = found_in_file(name)
    if isinstance(found, nn.Module):
        fix = "Name a function that makes one, so that each seed begins with weights of its own."
        raise UserError(f"{name} is a network that is made already", fix=fix)
    if request.drop_rate is not None or request.drop_path_rate is not None:
        raise UserError("drop rates are for models of the atlas", fix=f"Write {name}{{dropout: 0.1}}, or let the file set them.")
    asked = {key: getattr(request, key) for key in DEFAULTS}
    on_meta = _on_meta(lambda: _wrapped(found, asked, name))
    if on_meta is not None:
        check_parameters(on_meta, name)
        if torch.get_default_device().type == "meta":
            return on_meta
    with torch.device("cpu"):
        return _wrapped(found, asked, name)


def _on_meta(make: Callable[[], Network]) -> Network | None:
    """What is made on the meta device; None if that needs values."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights that are loaded to no effect
            return make()
    except Exception:  # the user's own code may raise anything; what it raises with values is told
        return None


def _wrapped(factory: Callable[..., Any], asked: Mapping[str, int | None], name: str) -> Network:
    module = _made(factory, arguments_of(factory, asked, name), name)
    if any(isinstance(each, (UninitializedParameter, UninitializedBuffer)) for each in (*module.parameters(), *module.buffers())):
        fix = "Name the numbers of channels and features, or pass an image through it in the function."
        raise UserError(f"{name} has lazy layers that have seen no image yet", fix=fix)
    network = module if isinstance(module, Network) else OwnNetwork(module)
    _alter(network, name)
    return network


def _alter(network: Network, name: str) -> None:
    _, settings = parsed(name)
    alter(network, settings, name=name, initialise=as_before)
    if "dropout" in settings:
        alter_dropout(network, settings["dropout"], name=name)


def takes(name: str) -> dict[str, int]:
    """Which of DEFAULTS the factory takes, with the values it has if nothing is said. Runs the file. Raises UserError."""
    found = found_in_file(name)
    return {} if isinstance(found, nn.Module) else _taken(found)


def arguments_of(factory: Callable[..., Any], asked: Mapping[str, int | None], name: str) -> dict[str, Any]:
    """The keyword arguments that a factory is given: those of DEFAULTS that it takes, where they are asked for or needed, and
    those that the network's name has under `with`. Raises UserError for one that it does not take.
    """
    signature = _signature(factory)
    taken = _taken(factory)
    needed = {key for key in taken if signature.parameters[key].default is inspect.Parameter.empty}
    said = {key: value for key, value in asked.items() if value is not None and key in taken}
    return {
        **{key: said.get(key, taken[key]) for key in taken if key in said or key in needed},
        **_own_arguments(signature, name),
    }


def _own_arguments(signature: inspect.Signature, name: str) -> dict[str, Any]:
    base, settings = parsed(name)
    own: dict[str, Any] = settings.get(ARGUMENTS, {})
    kinds = {each.kind for each in signature.parameters.values()}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [key for key, each in signature.parameters.items() if each.kind in by_name and key not in DEFAULTS]
    for key in own:
        if key not in known and inspect.Parameter.VAR_KEYWORD not in kinds:
            takes = f"It takes {', '.join(known)}." if known else "It takes none of its own."
            raise unknown_name(f"argument of {base}", key, known, where=takes)
    return own


def _taken(factory: Callable[..., Any]) -> dict[str, int]:
    parameters = _signature(factory).parameters
    found = {}
    for key, usual in DEFAULTS.items():
        if key in parameters and parameters[key].kind in (parameters[key].POSITIONAL_OR_KEYWORD, parameters[key].KEYWORD_ONLY):
            own = parameters[key].default
            found[key] = own if isinstance(own, int) and not isinstance(own, bool) else usual
    return found


def _signature(factory: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):  # of what is written in C there is none
        return inspect.Signature()


# The file


def found_in_file(name: str) -> Any:
    """Whatever the name `path/to/file.py:word` means in the trusted file, which is run. Raises UserError."""
    path, factory_name = factory_of(name)
    path = trusted_file(path)
    found = vars(_imported(path))
    if factory_name not in found:
        known = [each for each, value in found.items() if callable(value) and not each.startswith("_")]
        near = difflib.get_close_matches(factory_name, known, n=2)
        raise UserError(
            f"{path} has no {factory_name!r}",
            fix=f"Did you mean {' or '.join(near)}?" if near else "Name a function or class of it.",
        )
    return found[factory_name]


def _made(factory: Callable[..., Any], arguments: Mapping[str, int], name: str) -> nn.Module:
    path, factory_name = factory_of(name)
    try:
        with redirect_stdout(sys.stderr):  # what somebody's code prints is no part of a result
            model = factory(**arguments)
    except Exception as error:  # the user's own code may raise anything
        fix = "It must work with num_classes, in_chans and image_size alone, or name what else it needs: {with: {width: 32}}."
        raise UserError(f"{factory_name}() of {path} failed: {_said(error)}", fix=fix) from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{factory_name}() of {path} gives a {type(model).__name__}", fix="It must give a torch.nn.Module.")
    return model


def _imported(path: Path) -> ModuleType:
    """The file as a module, run once for each content; what lies beside it can be imported by it, as when it is run."""
    content = _content(path)
    key = (path.resolve(), sha256(content).hexdigest())
    if key not in _RUN:
        _RUN[key] = _run(path, content, key[1])
    return _RUN[key]


class _Content(importlib.abc.InspectLoader):
    """Loads a module from bytes that were read before, whose digest is known: the file may have been changed since."""

    def __init__(self, content: bytes, path: Path) -> None:
        self.content, self.path = content, path

    def get_source(self, fullname: str) -> str:
        """As the file says that it is encoded."""
        return importlib.util.decode_source(self.content)

    def get_code(self, fullname: str) -> CodeType:
        """Under the file's name, for tracebacks."""
        return self.source_to_code(self.content, str(self.path))


def _run(path: Path, content: bytes, digest: str) -> ModuleType:
    # Under a name of its own: dataclasses and pickle look modules up by theirs, and the file may be called like another module.
    loader = _Content(content, path)
    spec = importlib.util.spec_from_loader(f"{path.stem}_{digest[:12]}", loader, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[module.__name__] = module
    try:
        # What it draws while it is run must not depend on when that is, nor decide what is drawn later.
        with redirect_stdout(sys.stderr), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            loader.exec_module(module)
    except Exception as error:  # the user's own code may raise anything
        del sys.modules[module.__name__]
        raise UserError(f"{path} cannot be run: {_said(error)}", fix="Mend the file.") from error
    finally:
        sys.path.remove(folder)
    return module


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}".rstrip(": ")
