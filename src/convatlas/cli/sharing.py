"""`convatlas push`: a result folder onto the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from convatlas.cli import options as o
from convatlas.cli.console import tell, tell_json


def push(
    folder: Annotated[Path, typer.Argument(help="A result folder of `convatlas finetune`.")],
    repository: Annotated[str, typer.Argument(help="Where to, as owner/name on the Hugging Face hub.")],
    public: Annotated[bool, typer.Option("--public", help="Everybody may see it (otherwise only you).")] = False,
    as_json: o.Json = False,
) -> None:
    """Upload a network with its model card to the Hugging Face hub. Nothing else ever uploads anything."""
    from convatlas.transfer.sharing import push_to_hub

    address = push_to_hub(folder, repository, public=public)
    if as_json:
        tell_json({"address": address})
    else:
        tell(f"uploaded: {address}")
