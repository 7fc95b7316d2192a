"""`convatlas scale`: EfficientNet's compound scaling, by the rule and as published."""

import re
from typing import Annotated

import typer
from rich.table import Table

from convatlas.arith.scaling import ALPHA, BETA, GAMMA, PUBLISHED, Scale, compound_scale, cost_factor
from convatlas.cli.console import ERR, count, tell, tell_json, tell_table
from convatlas.cli.options import Json
from convatlas.errors import UserError
from convatlas.records.loading import ScaledNetwork

MOST = 20


def scale(
    phi: Annotated[
        str, typer.Option("--phi", help="The compound coefficient: one (3), several (0,1,2.5), a range (0..7).")
    ] = "0..7",
    alpha: Annotated[float, typer.Option("--alpha", help="Growth of depth.")] = ALPHA,
    beta: Annotated[float, typer.Option("--beta", help="Growth of width.")] = BETA,
    gamma: Annotated[float, typer.Option("--gamma", help="Growth of resolution.")] = GAMMA,
    as_json: Json = False,
) -> None:
    """Depth, width and resolution by EfficientNet's compound scaling, with the cost that a trace measures."""
    coefficients = _coefficients(phi)
    scales = [compound_scale(each, alpha=alpha, beta=beta, gamma=gamma) for each in coefficients]
    standard = (alpha, beta, gamma) == (ALPHA, BETA, GAMMA)
    with ERR.status("tracing the networks"):
        base = _traced("efficientnet_b0", PUBLISHED[0], None, None, 1)
        by_rule = [
            _traced(f"phi = {each:g}", found, each, cost_factor(each, alpha=alpha, beta=beta, gamma=gamma), base.macs)
            for each, found in zip(coefficients, scales, strict=True)
        ]
        members = [int(each) for each in coefficients if standard and each in PUBLISHED]
        published = [_traced(f"B{member}", PUBLISHED[member], None, None, base.macs) for member in members]
    if as_json:
        tell_json({"alpha": alpha, "beta": beta, "gamma": gamma, "by_rule": by_rule, "published": published})
        return
    _show(by_rule, published, alpha=alpha, beta=beta, gamma=gamma)


def _coefficients(text: str) -> list[float]:
    if found := re.fullmatch(r"(\d+)\.\.(\d+)", text):
        first, last = int(found[1]), int(found[2])
        values = [float(each) for each in range(first, min(last, first + MOST) + 1)]
    else:
        try:
            values = [float(each) for each in text.split(",")]
        except ValueError:
            raise UserError(f"--phi is {text!r}", fix="Give a number, several as 0,1,2.5, or a range as 0..7.") from None
    if not 1 <= len(values) <= MOST:
        raise UserError(f"--phi {text} has {len(values)} values", fix=f"Give 1 to {MOST}.")
    return values


def _traced(name: str, found: Scale, phi: float | None, predicted: float | None, base: int) -> ScaledNetwork:
    """The network of that scale, built and traced on the meta device."""
    import torch

    from convatlas.inspection.trace import trace
    from convatlas.layers.network import Request
    from convatlas.models.efficientnet import EfficientNet, scaled

    config = scaled(found, dropout=0.0)
    with torch.device("meta"):
        network = EfficientNet(config, Request(num_classes=1000, in_chans=3, image_size=found.resolution))
    record = trace(network, (3, found.resolution, found.resolution))
    return ScaledNetwork(
        name=name,
        phi=phi,
        depth=found.depth,
        width=found.width,
        resolution=found.resolution,
        depths=tuple(row.depth for row in config.stages),
        widths=tuple(row.width for row in config.stages),
        params=record.params,
        macs=record.macs,
        cost=record.macs / base,
        predicted=predicted,
    )


def _show(by_rule: list[ScaledNetwork], published: list[ScaledNetwork], *, alpha: float, beta: float, gamma: float) -> None:
    tell(f"depth {alpha:g}^phi, width {beta:g}^phi, resolution 224 * {gamma:g}^phi to a multiple of 4")
    tell(f"alpha * beta^2 * gamma^2 = {alpha * beta**2 * gamma**2:.4g}: the rule's growth of the cost for phi = 1")
    tell("")
    tell_table(_table("By the rule", by_rule))
    if published:
        tell("")
        tell_table(_table("As published (B0 to B7 follow the rule, but not to the digit)", published))
    tell("")
    tell("Depths are rounded up; widths to a multiple of 8, but never below nine tenths. Cost: traced MACs over those of B0.")
    for network in [*by_rule, *published]:
        blocks = " ".join(map(str, network.depths))
        tell(f"{network.name}: blocks {blocks}; channels {' '.join(map(str, network.widths))}")


def _table(title: str, networks: list[ScaledNetwork]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    ruled = any(network.predicted is not None for network in networks)
    for heading in ("depth", "width", "pixels", "params", "MACs", "cost", *(["the rule's"] if ruled else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for network in networks:
        cells = [network.name, f"{network.depth:.3g}", f"{network.width:.3g}", str(network.resolution)]
        cells += [count(network.params), count(network.macs), f"{network.cost:.2f}"]
        table.add_row(*cells, *([f"{network.predicted:.2f}"] if network.predicted is not None else []))
    return table
