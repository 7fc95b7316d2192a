"""`convatlas convert`: weights to and from other libraries."""

from pathlib import Path
from typing import Annotated

import typer

from convatlas.cli.console import counted, tell, tell_json
from convatlas.cli.options import Json


def convert(
    source: Annotated[Path, typer.Argument(help="A file of weights (.safetensors, .pth), or a finished run's folder.")],
    out: Annotated[Path, typer.Argument(help="The new file: .safetensors, .pth or .pt.")],
    to: Annotated[str, typer.Option("--to", help="Whose names the tensors get: torchvision, timm or convatlas.")] = "convatlas",
    model: Annotated[str | None, typer.Option("--model", help="The network, such as resnet50; a run knows its own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write weights under another library's names, so that they load there; or from there, here."""
    from convatlas.models.converting import convert as convert_file

    done = convert_file(source, to=to, out=out, model=model, overwrite=force)
    if as_json:
        tell_json(done)
        return
    names = f"under {done.to_layout}'s names"
    tell(f"{done.model}: {counted(done.tensors, 'tensor')} {names} in {done.out}")
    if done.preprocessing is not None:
        how = done.preprocessing
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (how.mean, how.std))
        tell(f"Its input: values in [0, 1] of {how.crop}x{how.crop} pixels, less the mean ({mean}), over the deviation ({std}).")
    tell("In Python:")
    for line in done.how:
        tell(f"    {line}")
