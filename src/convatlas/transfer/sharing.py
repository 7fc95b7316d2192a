"""A result folder onto the Hugging Face hub: done when it is asked for, and never else."""

from dataclasses import replace
from pathlib import Path

from convatlas.errors import UserError, first_line
from convatlas.models.hub import offline
from convatlas.records import codec
from convatlas.records.naming import weights_name
from convatlas.records.run import Recipe
from convatlas.training.checkpoint import load_model

SHARED = ("model.safetensors", "config.json", "README.md", "manifest.json", "receipt.json")
"""What others need. Training states, answers and pictures of the data stay here."""


def push_to_hub(folder: Path, repository: str, *, public: bool = False) -> str:
    """Upload the network in `folder` to the repository `owner/name`, made private unless `public`; the address of the upload.

    The folder is checked as `load` does. Raises UserError: also without a token, as `hf auth login` leaves it.
    """
    load_model(folder)
    owner, _, name = repository.partition("/")
    if not owner or not name or "/" in name:
        raise UserError(f"{repository!r} names no repository", fix="Give it as owner/name.")
    if offline():
        raise UserError("uploading needs the network, which HF_HUB_OFFLINE forbids", fix="Unset HF_HUB_OFFLINE.")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_file(repo_id=repository, path_or_fileobj=_shared_recipe(folder), path_in_repo="recipe.json")
        done = api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=list(SHARED))
    except LocalTokenNotFoundError:
        raise UserError("the hub knows nobody here", fix="Run: hf auth login") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(
            f"{repository} could not be uploaded: {first_line(error)}", fix="Check the name and your token."
        ) from error
    return str(done)


def _shared_recipe(folder: Path) -> bytes:
    """The recipe without the path at which its weights lay here, which is nobody's business: their file's name is left."""
    recipe = codec.read(Recipe, folder / "recipe.json")
    if recipe.tuning is not None and recipe.tuning.weights is not None:
        recipe = replace(recipe, tuning=replace(recipe.tuning, weights=weights_name(recipe.tuning.weights)))
    return codec.to_text(recipe).encode()
