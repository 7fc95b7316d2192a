"""A result folder onto the Hugging Face hub: done when it is asked for, and never else."""

from pathlib import Path

from convatlas.errors import UserError, first_line
from convatlas.models.hub import offline
from convatlas.records import codec
from convatlas.records.finished import result_in
from convatlas.records.run import Recipe
from convatlas.training.checkpoint import load_model

SHARED = ("model.safetensors", "config.json", "README.md", "manifest.json", "receipt.json")
"""What others need. Training states, answers and pictures of the data stay here."""
_UNREACHED = frozenset({"ConnectionError", "TimeoutError", "TransportError", "RequestException"})
"""Errors of Python's, httpx's and requests' that mean: nobody answered. By name, since the hub's library may use either."""


def push_to_hub(folder: Path, repository: str, *, public: bool = False) -> str:
    """Upload the network in `folder` to the repository `owner/name`, made private unless `public`; the address of the upload.

    Of a tournament's folder it is the winner. The folder is checked as `load` does. Raises UserError: also without a network,
    and without a token, as `hf auth login` leaves it.
    """
    folder = result_in(folder)
    load_model(folder)
    owner, _, name = repository.partition("/")
    if not owner or not name or "/" in name:
        raise UserError(f"{repository!r} names no repository", fix="Give it as owner/name.")
    if offline():
        raise UserError("uploading needs the network, which HF_HUB_OFFLINE forbids", fix="Unset HF_HUB_OFFLINE.")
    from huggingface_hub import HfApi

    recipe = codec.to_text(codec.read(Recipe, folder / "recipe.json").shared).encode()
    try:
        api = HfApi()
        api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_file(repo_id=repository, path_or_fileobj=recipe, path_in_repo="recipe.json")
        done = api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=list(SHARED))
    except Exception as error:
        # What the library raises is its own, its HTTP library's (which changed its name), and its Rust part's: no common base.
        raise _refused(repository, error) from error
    return str(done)


def _refused(repository: str, error: Exception) -> UserError:
    """Why the upload failed, in a line, and what to do."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    what = f"{repository} could not be uploaded"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return UserError(f"{what}: the hub does not know who you are", fix="Run: hf auth login")
    if status == 403:
        fix = "Name a repository of your own, or log in with a token that may write: hf auth login"
        return UserError(f"{what}: you may not write there", fix=fix)
    if isinstance(error, HFValidationError):
        return UserError(f"{what}: {first_line(error)}", fix="Give another name, as owner/name.")
    if status is not None:
        return UserError(f"{what}: the hub answered {status}: {first_line(error)}", fix="Check the name, or try again later.")
    if _UNREACHED & {kind.__name__ for kind in type(error).__mro__}:
        reason = f"{type(error).__name__}: {first_line(error)}"
        return UserError(f"{what}: the hub cannot be reached ({reason})", fix="Check the network, then run it again.")
    return UserError(f"{what}: {first_line(error)}", fix="Check the folder, the name and the network, then run it again.")
