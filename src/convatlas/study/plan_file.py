"""A study as its author writes it: a YAML file, or Python with the same dataclass.

    question: Does batch normalisation help a plain network of 20 layers?
    recipe: {data: cifar10, epochs: 10, optimizer: sgd, lr: 0.1}
    model: resnet20.plain
    factors: {norm: [batch, none]}
    seeds: 3

A Python file is named with what it has: `plan.py:study`, a `Study` or a function that gives one.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from convatlas.errors import UserError
from convatlas.models.configuration import factory_of, is_user_file
from convatlas.models.user_files import found_in_file, trust
from convatlas.records.yaml_file import read_yaml

DESIGNS = ("full", "one-at-a-time")
COMPARED = ("all", "baseline")
MOST_SEEDS = 1000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
"""Of a study, and so of its folder."""


@dataclass(frozen=True)
class Study:
    """What varies, what is held equal, and what all runs share; nothing of it is checked against data or models yet.

    `recipe` has settings of a run's recipe, and with `base` the name of one from `convatlas recipes` to begin with. `factors`
    gives each factor its levels: a list, or a mapping from labels to levels. A factor is a setting of the recipe, `model`, a
    setting of the model (`norm`, or `model.norm`), `data_fraction`, or `recipe`, whose levels are mappings of several settings.
    `model` is that of all variants if it is no factor. `seeds` is how many, or which. `hold` says what all variants have equal,
    with the `tolerance`. `compare` is "all" pairs, "baseline" (each against the first), or pairs of variants' names.
    `equivalence` is in points of accuracy. `tune` has `trials`, `epochs`, and the settings that are `searched`.
    """

    question: str
    recipe: Mapping[str, Any]
    factors: Mapping[str, Any]
    model: Any = None
    name: str | None = None
    design: str = "full"
    seeds: int | Sequence[int] = 3
    hold: Mapping[str, Any] = field(default_factory=dict)
    compare: Any = None
    equivalence: float = 0.0
    tune: Mapping[str, Any] | None = None
    threads: int = 1
    processes: int = 1
    watch_test: bool = False


def read_study(source: str) -> Study:
    """The study in the file `source`: YAML (or JSON), or `plan.py:study`. A Python file is run. Raises UserError."""
    if is_user_file(source):
        trust(factory_of(source)[0])
        found = found_in_file(source)
        made = found if isinstance(found, Study) else found() if callable(found) else found
        if not isinstance(made, Study):
            raise UserError(f"{source} gives a {type(made).__name__}", fix="It must be, or give, a convatlas Study.")
        return checked(made, where=source)
    content = read_yaml(Path(source))
    if not isinstance(content, dict) or not content:
        raise UserError(f"{source} holds no study", fix="It needs `question`, `recipe` and `factors` at least.")
    return from_mapping(content, where=source)


def from_mapping(content: Mapping[str, Any], *, where: str) -> Study:
    """The study that a mapping holds. Raises UserError for a key that is unknown, missing, or of the wrong kind."""
    known = [each.name for each in fields(Study)]
    for key in content:
        if key not in known:
            raise unknown_key(where, key, known)
    for key in ("question", "recipe", "factors"):
        if key not in content:
            raise UserError(f"{where} lacks the key {key!r}", fix="See docs/studies.md for an example.")
    return checked(Study(**content), where=where)


def unknown_key(where: str, key: str, known: list[str]) -> UserError:
    """The error for a key that nobody knows."""
    near = difflib.get_close_matches(key, known, n=1)
    guess = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
    return UserError(f"{where} has an unknown key {key!r}", fix=guess)


def checked(study: Study, *, where: str) -> Study:
    """The study, if each of its parts is of the right kind. Raises UserError."""
    kinds: dict[str, tuple[type | tuple[type, ...], str]] = {
        "question": (str, "a text"),
        "name": ((str, type(None)), "a text"),
        "recipe": (Mapping, "a mapping of settings"),
        "factors": (Mapping, "a mapping from factors to their levels"),
        "design": (str, " or ".join(DESIGNS)),
        "seeds": ((int, tuple, list), "a number of seeds, or a list of them"),
        "hold": (Mapping, "a mapping such as {params: 270000}"),
        "equivalence": ((int, float), "points of accuracy, such as 0.5"),
        "tune": ((Mapping, type(None)), "a mapping with trials, epochs and searched"),
        "threads": (int, "a whole number"),
        "processes": (int, "a whole number"),
        "watch_test": (bool, "true or false"),
    }
    for key, (kind, wanted) in kinds.items():
        value = getattr(study, key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise UserError(f"{where}: {key} is {str(value)[:60]!r}", fix=f"Give {wanted}.")
    _check_values(study, where)
    return study


def _check_values(study: Study, where: str) -> None:
    limits = {"threads": (1, 1024), "processes": (1, 64), "equivalence": (0, 100)}
    for key, (low, high) in limits.items():
        if not low <= getattr(study, key) <= high:
            raise UserError(f"{where}: {key} is {getattr(study, key)}", fix=f"Give {low} to {high}.")
    if study.design not in DESIGNS:
        raise UserError(f"{where}: design is {study.design[:60]!r}", fix=f"Choose {' or '.join(DESIGNS)}.")
    if not study.question.strip() or len(study.question) > 500:
        raise UserError(f"{where}: the question is empty or longer than 500 letters", fix="Ask it in one sentence.")
    if study.name is not None and not NAME.fullmatch(study.name):
        raise UserError(f"{where}: the name is {study.name[:60]!r}", fix="Give 1 to 80 letters, digits, dots, - or _, or none.")
    seeds_of(study, where)


def seeds_of(study: Study, where: str) -> tuple[int, ...]:
    """Which seeds there are: 3 means 0, 1, 2."""
    if isinstance(study.seeds, int):
        if not 1 <= study.seeds <= MOST_SEEDS:
            raise UserError(f"{where}: seeds is {study.seeds}", fix=f"Give 1 to {MOST_SEEDS}, or a list of seeds.")
        return tuple(range(study.seeds))
    for seed in study.seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise UserError(f"{where}: {str(seed)[:40]!r} is no seed", fix="Give whole numbers of 0 or more.")
        if list(study.seeds).count(seed) > 1:
            raise UserError(f"{where}: the seed {seed} stands twice", fix="Name each once: a run is not repeated.")
    if not 1 <= len(study.seeds) <= MOST_SEEDS:
        raise UserError(f"{where}: there are {len(study.seeds)} seeds", fix=f"Give 1 to {MOST_SEEDS}.")
    return tuple(study.seeds)
