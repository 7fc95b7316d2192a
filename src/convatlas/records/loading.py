"""What happened when weights were loaded into a network."""

from dataclasses import dataclass

from convatlas.records.weights import Preprocessing


@dataclass(frozen=True)
class LoadReport:
    """Where weights came from, and what in the network is not as in the file.

    `source` is `source:tag`, or the file's name; `layout` says whose names the file's tensors have; `tensors` is how many were
    loaded. `adapted` says in words what was changed to fit; `fresh` names the tensors that kept their random initial values;
    `left_out` those of the file that this network has no use for. `preprocessing` is what the weights were trained for, where
    that is known, and `licence` what their publisher states.
    """

    source: str
    layout: str
    tensors: int
    adapted: tuple[str, ...]
    fresh: tuple[str, ...]
    left_out: tuple[str, ...]
    preprocessing: Preprocessing | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Conversion:
    """A file of weights written under other names: `source` in the layout `from_layout` became `out` in `to_layout`.

    `num_classes` 0 means that there is no classifier; `preprocessing` is what a run's own weights want, `how` the Python that
    loads the file, one line each.
    """

    model: str
    source: str
    from_layout: str
    to_layout: str
    out: str
    tensors: int
    num_classes: int
    in_chans: int
    preprocessing: Preprocessing | None
    how: tuple[str, ...]


@dataclass(frozen=True)
class ScaledNetwork:
    """An EfficientNet of compound scaling: its factors, what they make of B0's stages, and what it costs.

    `phi` is None for published ones, which do not follow the rule to the digit; `macs` for one image of `resolution` pixels,
    traced; `cost` is macs relative to B0's, `predicted` the rule's (alpha * beta^2 * gamma^2)^phi.
    """

    name: str
    phi: float | None
    depth: float
    width: float
    resolution: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    params: int
    macs: int
    cost: float
    predicted: float | None
