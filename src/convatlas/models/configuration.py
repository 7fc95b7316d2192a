"""The names of models: variants, configurations of them, files that hold one, and factories in Python files.

    resnet.pocket                        a variant
    resnet{act: tanh, norm: none}        a family (its member for small images) or variant with settings, as a YAML mapping
    net.yaml                             a file with such a mapping, which says `family: resnet` or `variant: resnet20`
    net.py:make, net.py:make{act: tanh}  a function or class in a Python file, as it is or altered from outside

Each has one canonical form, which needs no file but Python's: equal configurations have equal names.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convatlas.errors import UserError, unknown_name
from convatlas.models.families import FAMILIES, FAMILY_OF
from convatlas.models.settings import Settings, checked, keys_of
from convatlas.records.yaml_file import from_yaml, read_yaml

LONGEST = 10_000
"""Letters of a name."""
CONFIGURATION_KEYS = tuple(sorted({key for family in FAMILIES for key in keys_of(family)}))
"""Every key that some network takes."""
_BRACES = re.compile(r"(.*?\.py:\w+|[^{}]*)(\{.*\})", re.DOTALL)
_FACTORY = re.compile(r"(.*\.py):(\w+)", re.DOTALL)


def is_configuration_key(key: str) -> bool:
    """Whether some network can be configured by this key."""
    return key in CONFIGURATION_KEYS


def is_user_file(name: str) -> bool:
    """Whether a name means a factory in a Python file, and no network of the atlas."""
    base = _split(name)[0]
    return ".py:" in base or base.endswith(".py")


def factory_of(name: str) -> tuple[Path, str]:
    """The file and the factory that a name such as `net.py:make{norm: none}` means. Raises UserError."""
    found = _FACTORY.fullmatch(_split(name)[0])
    if found is None or not found[2].isidentifier():
        raise UserError(f"{name!r} names no factory", fix="Name one after a colon, such as net.py:make_model.")
    return Path(found[1]), found[2]


def model_name(value: str | Mapping[str, Any], *, where: str = "the model") -> str:
    """The canonical name of a model: of a name in any form, or of a mapping as a YAML file has it. Raises UserError."""
    base, settings = parsed(value, where=where)
    if not settings:
        return base
    family = FAMILY_OF.get(base)
    # A family is named as such, unless a variant has the same name (googlenet).
    short = family is not None and FAMILIES[family].member == base and family not in FAMILY_OF
    return f"{family if short else base}{json.dumps(settings, sort_keys=True, ensure_ascii=False)}"


def configured(value: str | Mapping[str, Any], settings: Mapping[str, Any], *, where: str = "the model") -> str:
    """The canonical name of a model with further settings, which replace its own; None takes one away. Raises UserError."""
    base, own = parsed(value, where=where)
    return model_name({"variant": base, **own, **settings}, where=where)


def parsed(value: str | Mapping[str, Any], *, where: str = "the model") -> tuple[str, Settings]:
    """The variant (or factory in a file, such as `net.py:make`) that is meant, and its settings, checked. Raises UserError."""
    if isinstance(value, Mapping):
        base, settings = _of_mapping(value, where)
        return base, checked(base, settings, where=where)
    if not isinstance(value, str):
        raise UserError(f"{where} is {value!r}"[:100], fix="Give a name, or a mapping with family or variant.")
    if len(value) > LONGEST:
        raise UserError(f"{where} has a name of {len(value):,} letters", fix="Check it.")
    text, braces = _split(value)
    if text.endswith((".yaml", ".yml")):
        base, settings = _of_mapping(_mapping(read_yaml(Path(text)), text), text)
    else:
        base, settings = _named(text, configured=braces is not None), {}
    if braces is not None:
        settings = {**settings, **_mapping(from_yaml(braces, where=value), value)}
    return base, checked(base, settings, where=text)


def _split(name: str) -> tuple[str, str | None]:
    """A name without its settings, and their text within braces."""
    found = _BRACES.fullmatch(name) if len(name) <= LONGEST else None
    return (found[1].strip(), found[2]) if found else (name, None)


def _named(name: str, *, configured: bool) -> str:
    """The variant or factory that a name without settings means."""
    if name in FAMILY_OF:
        return name
    if is_user_file(name):
        path, factory = factory_of(name)
        return f"{path}:{factory}"
    if configured and name in FAMILIES:
        return FAMILIES[name].member
    raise unknown_name("model", name, FAMILY_OF, where="`convatlas list --all` shows them all.")


def _mapping(found: Any, where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise UserError(f"{where} holds no mapping", fix="Write keys and values, such as family: resnet.")
    return found


def _of_mapping(found: Mapping[str, Any], where: str) -> tuple[str, Settings]:
    """The variant or factory that a mapping names, and all else in it."""
    settings = {key: value for key, value in found.items() if key not in ("family", "variant")}
    if ("family" in found) == ("variant" in found):
        raise UserError(f"{where} must say either family or variant", fix="Such as family: resnet, or variant: resnet20.")
    if "family" in found:
        family = found["family"]
        if not isinstance(family, str) or family not in FAMILIES:
            raise unknown_name("family", str(family), FAMILIES, where=f"Known: {', '.join(FAMILIES)}.")
        return FAMILIES[family].member, settings
    name = found["variant"]
    if not isinstance(name, str) or _split(name)[1] is not None or name.endswith((".yaml", ".yml")):
        raise UserError(f"{where}: variant is {name!r}"[:100], fix="Name a variant, or a factory such as net.py:make.")
    return _named(name, configured=False), settings
