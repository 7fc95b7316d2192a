"""Names of models as people type them, as texts: lists of them, and what their folders and files are called. No torch here."""

import re
from hashlib import sha256

LONGEST = 60
"""Letters of a short name."""
_SAFE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{LONGEST - 1}}}")


def short_name(model: str) -> str:
    """What a folder or file of the model is called: at most 60 letters, digits, `.`, `_` and `-`.

    A variant is called by its name. Anything else is made of its words and eight digits of the SHA-256 of the whole, so that
    distinct models have distinct names.
    """
    if _SAFE.fullmatch(model):
        return model
    digest = sha256(model.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    words = re.sub(r"[^A-Za-z0-9_.]+", "-", model).strip("-.")[: LONGEST - 1 - len(digest)].rstrip("-.")
    return f"{words or 'model'}-{digest}"


def split_names(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list. Commas within braces and brackets belong to a name."""
    names, depth = [""], 0
    for letter in text:
        depth += (letter in "{[") - (letter in "}]")
        if letter == "," and depth <= 0:
            names.append("")
        else:
            names[-1] += letter
    return tuple(name.strip() for name in names if name.strip())


def weights_name(weights: str) -> str:
    """What weights are called: a file without the folders of the machine on which it lay."""
    return weights if weights.startswith("hf-hub:") else weights.replace("\\", "/").rpartition("/")[2]
