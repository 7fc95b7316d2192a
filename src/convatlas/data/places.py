"""Where data lies: the order in which places are searched, and a memory of where a run's data was found."""

import json
import os
import tempfile
from pathlib import Path

from convatlas.data.catalog import CATALOG, Entry
from convatlas.errors import UserError

SYSTEM_FOLDERS = (Path("/usr/share/datasets"), Path("/usr/local/share/datasets"))


def cache_folder() -> Path:
    """Where ConvAtlas keeps data it downloads: $XDG_CACHE_HOME/convatlas/data, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(base) / "convatlas" / "data"


def search_folders(name: str) -> list[Path]:
    """The folders in which the files of `name` are looked for, first to last, whether or not they exist."""
    bases = [Path(os.environ["CONVATLAS_DATA"])] if os.environ.get("CONVATLAS_DATA") else []
    bases.append(cache_folder())
    places = [place for base in bases for place in (base / name, base)]
    return places + [base / name for base in SYSTEM_FOLDERS]


def present(name: str) -> Path | None:
    """The folder or archive from which the published data set `name` would be read; None if it is not on this machine."""
    return found(name, None) if CATALOG[name].kind == "files" else None


def found(name: str, root: Path | None) -> Path | None:
    """As `present`, but looks in `root` alone if one is given."""
    candidates = search_folders(name) if root is None else [root]
    places = (_within(CATALOG[name], candidate) for candidate in candidates)
    return next((place for place in places if place is not None), None)


def locate(name: str, root: Path | None) -> Path:
    """The folder or archive from which to read the published data set `name`.

    `root`, if given, is the only place searched: the folder of the files, the folder above it, or the archive itself.
    Raises UserError that says where the files were looked for and how to get them.
    """
    entry = CATALOG[name]
    place = found(name, root)
    if place is not None:
        return place
    if root is None:
        looked = ", ".join(str(folder) for folder in search_folders(name))
        raise UserError(f"{entry.title} is not on this machine (looked in {looked})", fix=_how_to_get(name, entry))
    reason = "holds none of its files" if root.exists() else "does not exist"
    raise UserError(f"{root} {reason}: no {entry.title} there", fix=f"It needs {_needed(entry)}. {_how_to_get(name, entry)}")


def _within(entry: Entry, root: Path) -> Path | None:
    """The folder below `root` that has all files of one known state, or the archive; None if neither is there."""
    if root.is_file():
        return root if root.name in {download.file for download in entry.downloads} else None
    names = list(entry.known[0].md5)
    for folder in (root / sub for sub in entry.folders):
        if all((folder / name).is_file() or (folder / f"{name}.gz").is_file() for name in names):
            return folder
    archives = [root / download.file for download in entry.downloads if download.file.endswith(".tar.gz")]
    return next((archive for archive in archives if archive.is_file()), None)


def _needed(entry: Entry) -> str:
    archives = [download.file for download in entry.downloads if download.file.endswith(".tar.gz")]
    return " or ".join([*archives, f"the files {', '.join(entry.known[0].md5)}"])


def _how_to_get(name: str, entry: Entry) -> str:
    get = f"get {entry.downloads[0].file} from {entry.source} and give --data-root its folder"
    return f"Fetch it with `convatlas data {name} --download`, or {get}."


def remember(fingerprint: str, root: Path) -> None:
    """Notes that the data with this fingerprint was read from `root`.

    Skipped where the cache cannot be written: it only saves typing --data-root again.
    """
    try:
        known = _remembered()
        known[fingerprint] = str(root.absolute())
        _memory_file().parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=_memory_file().parent, prefix="places-", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(known, file, indent=1)
        Path(temporary).replace(_memory_file())
    except (OSError, UnicodeEncodeError):
        return


def recall(fingerprint: str) -> Path | None:
    """Where the data with this fingerprint was last read from on this machine; None if unknown or gone."""
    place = _remembered().get(fingerprint)
    return Path(place) if place is not None and Path(place).exists() else None


def _memory_file() -> Path:
    return cache_folder().parent / "places.json"


def _remembered() -> dict[str, str]:
    try:
        known = json.loads(_memory_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, str)} if isinstance(known, dict) else {}
