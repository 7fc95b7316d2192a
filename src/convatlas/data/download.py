"""Fetching the data sets of the catalogue."""

from pathlib import Path

from convatlas.data.catalog import CATALOG
from convatlas.download import Digest, Report, download


def download_entry(name: str, folder: Path, *, progress: Report | None) -> None:
    """Fetches the files of the catalogue's `name` that `folder` lacks. Raises UserError."""
    for item in CATALOG[name].downloads:
        if not (folder / item.file).is_file():
            download(item.urls, folder / item.file, digest=Digest("md5", item.md5), size=item.size, progress=progress)
