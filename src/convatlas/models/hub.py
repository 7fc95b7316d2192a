"""Files of repositories on the Hugging Face hub, by way of its own library and cache. No torch here.

`huggingface_hub` is imported when called: it takes a sixth of a second, and most commands do without.
"""

import os
import re
from pathlib import Path

from convatlas.download import MOST_BYTES, Digest
from convatlas.errors import UserError

SAFETENSORS = "model.safetensors"
PICKLED = "pytorch_model.bin"
CONFIG = "config.json"

_TIMEOUT_SECONDS = 10


class _TooLarge(Exception):
    """The file would fill the disk, or might."""


class Absent(Exception):
    """The repository is there, but has no such file."""


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network, in any of the spellings that the hub's library takes."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def address(repo: str, file: str, *, revision: str | None = None) -> str:
    """The file's web address."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repo, file, revision=revision)


def cached(repo: str, file: str, *, revision: str | None = None) -> Path | None:
    """Where the file lies in the hub's cache on this machine; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    place = try_to_load_from_cache(repo, file, revision=revision)
    return Path(place) if isinstance(place, str) else None


def difference(place: Path) -> str | None:
    """How a file in the hub's cache differs from what the hub sent, in words; None if it does not, or if it is not known.

    The cache names what a file's link points to after the content: by its sha256 where the file is large. What that may
    in turn point to is named otherwise.
    """
    blob = place.readlink().name if place.is_symlink() else ""
    return Digest("sha256", blob).difference(place) if re.fullmatch("[0-9a-f]{64}", blob) else None


def fetch(repo: str, file: str, *, revision: str | None = None, otherwise: str) -> Path:
    """Fetches the file into the hub's cache, with the hub's own progress bar at a terminal, and checks it.

    Raises Absent, or UserError of which `otherwise` is the fix.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        # Asked by itself first: without a network, hf_hub_download tries on for 23 seconds and logs each time.
        url = address(repo, file, revision=revision)
        known = huggingface_hub.get_hf_file_metadata(url, timeout=_TIMEOUT_SECONDS)
        if known.commit_hash is None:
            raise ConnectionError("something else than the hub answers, such as a sign-in page")
        if known.size is None or known.size > MOST_BYTES:
            size = "an unknown number of" if known.size is None else f"{known.size:,}"
            raise _TooLarge(f"it has {size} bytes, and {MOST_BYTES:,} are the most that is fetched")
        place = Path(huggingface_hub.hf_hub_download(repo, file, revision=revision))
        if difference(place) is not None:
            place = Path(huggingface_hub.hf_hub_download(repo, file, revision=revision, force_download=True))
    except EntryNotFoundError as error:
        if not isinstance(error, LocalEntryNotFoundError):
            raise Absent(f"{repo} has no {file}") from None
        raise _failed(repo, file, error, otherwise) from error
    except Exception as error:
        # What the library raises is its own, its HTTP library's (which changed its name), and its Rust part's: no common base.
        raise _failed(repo, file, error, otherwise) from error
    if (wrong := difference(place)) is not None:
        raise UserError(f"{place} is damaged ({wrong}), and fetching it anew did not mend it", fix=otherwise)
    return place


def _failed(repo: str, file: str, error: Exception, otherwise: str) -> UserError:
    what = f"{file} of {repo} could not be fetched from the Hugging Face hub ({_reason(repo, error)})"
    return UserError(what, fix=otherwise)


def _reason(repo: str, error: Exception) -> str:
    """Why the hub did not give a file, in a few words on one line."""
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return f"its owner grants access: ask at https://huggingface.co/{repo}, then `hf auth login`"
        case errors.RepositoryNotFoundError():
            return "there is no such repository, or it is private and wants `hf auth login`"
        case errors.RevisionNotFoundError():
            return "it has no such revision"
        case _TooLarge():
            return str(error)
        case errors.HfHubHTTPError():
            return f"it answered {error.response.status_code}"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {' '.join(lines[0].split())[:200]}"
