"""YAML as people write it, read strictly: what YAML 1.1 makes of `no`, `1e-3` and `12:30` surprises everyone.

Only `true` and `false` are booleans (YAML 1.2, section 10.3), `1e-3` is a number, dates are texts; a key may stand once; aliases
and tags are refused, so that no file can grow when it is read, or name a class.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from convatlas.errors import UserError, first_line
from convatlas.records import codec

MOST_LETTERS = 1_000_000
DEEPEST = 32


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML 1.2's core schema, without aliases, tags or twice the same key."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node, unless it is an alias, tagged, or too deep."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias (*) is not admitted here", problem_mark=event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem="a tag (!) is not admitted here", problem_mark=event.start_mark)
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"more than {DEEPEST} levels", problem_mark=event.start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are texts, each once."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is no text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


_Loader.add_constructor("tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node))
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: _whole(node))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(node.value))


def _whole(node: Any) -> int:
    """A whole number in ten's notation: YAML 1.1 would read 010 as eight."""
    if len(node.value) > 300:
        raise yaml.MarkedYAMLError(problem="a number of more than 300 digits", problem_mark=node.start_mark)
    return int(node.value)


def from_yaml(text: str, *, where: str) -> Any:
    """What the YAML (or JSON) `text` holds: dicts with texts as keys, lists, texts, numbers, booleans, None. Raises UserError."""
    if len(text) > MOST_LETTERS:
        raise UserError(f"{where} has {len(text):,} letters, too many for such a file", fix="Check the path.")
    loader = _Loader("")
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise UserError(f"{where}{line}: {said}", fix="Mend the file.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where} is no YAML: {first_line(error)}", fix="Mend the file.") from None
    finally:
        loader.dispose()


def read_yaml(path: Path) -> Any:
    """What the YAML file `path` holds. Raises UserError."""
    return from_yaml(codec.text_of(path), where=str(path))
