"""Building a configured network: its family builds it from its own configuration, then it is altered from outside."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from convatlas.errors import UserError, first_line
from convatlas.layers.network import Network, Request
from convatlas.models.alterations import alter
from convatlas.models.families import FAMILIES, FAMILY_OF
from convatlas.models.settings import configuration

MOST_PARAMETERS = 2_000_000_000
"""A configured network with more is refused before any is made."""


def build_configured(base: str, settings: Mapping[str, Any], name: str, request: Request) -> Network:
    """The variant `base` with settings that were checked. `name` is what the network is called in messages. Raises UserError."""
    return within_limits(lambda: _built(base, settings, name, request), name)


def within_limits(build: Callable[[], Network], name: str) -> Network:
    """What `build` makes, unless it has too many parameters, which is found on the meta device. Raises UserError."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            network = build()
    except UserError:
        raise
    except (RuntimeError, ValueError) as error:  # torch's own words for widths that do not fit together
        raise UserError(f"{name} cannot be built: {first_line(error)}", fix="Mend its settings.") from error
    check_parameters(network, name)
    return network if torch.get_default_device().type == "meta" else build()


def check_parameters(network: torch.nn.Module, name: str) -> None:
    """Refuse a network that is too large for any machine that this is meant for."""
    parameters = sum(each.numel() for each in network.parameters())
    if parameters > MOST_PARAMETERS:
        fix = f"Make it smaller: {MOST_PARAMETERS:,} are admitted."
        raise UserError(f"{name} would have {parameters:,} parameters", fix=fix)


def _built(base: str, settings: Mapping[str, Any], name: str, request: Request) -> Network:
    family = FAMILIES[FAMILY_OF[base]]
    config = configuration(base, settings)
    if settings.get("shortcut") is False and request.drop_path_rate:
        raise UserError("drop path drops what shortcuts pass by, and shortcut is false", fix="Leave one of them out.")
    network = family.network(config, _asked(settings, request))
    alter(network, settings, name=name, initialise=lambda new, old: family.initialise(new, config))
    return network


def _asked(settings: Mapping[str, Any], request: Request) -> Request:
    """The request with the rates of the settings, where the caller names none."""
    dropout, drop_path = request.drop_rate, request.drop_path_rate
    return replace(
        request,
        drop_rate=settings.get("dropout") if dropout is None else dropout,
        drop_path_rate=settings.get("drop_path") if drop_path is None else drop_path,
    )
