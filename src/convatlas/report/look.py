"""The page of what was seen in a network: one HTML file without script, its pictures inside."""

from dataclasses import dataclass

from convatlas.records.gradients import RunFlow
from convatlas.records.look import Activity, Look
from convatlas.report import figures
from convatlas.report.charts.svg import Markup
from convatlas.report.gradients import run_chart
from convatlas.report.html import NARROW, WIDE, templates
from convatlas.report.sections import png

MOSTLY = 0.5
"""From this share of dead channels on, a layer is called mostly dead."""
ACTIVATIONS = frozenset(
    {"ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "GELU", "SiLU", "Mish", "Tanh", "Sigmoid", "Hardswish", "Hardtanh", "Softplus"}
)
"""Layers after which channels are counted as dead; counted after each convolution and norm too, one would count three times."""
READINGS = {
    "maps": "Each square is one channel, those that vary most; yellow is high, blue low, in one scale for the layer.",
    "filters": (
        "Each square is one filter, in its own brightness; grey is zero. Trained ones show edges and colours, random ones noise."
    ),
    "fields": (
        "How strongly the unit in the middle depends on each pixel, the brighter the more; the colours follow the root of the "
        "gradient, so that the rim is seen. Its width is the root of the number of pixels "
        "with at least 4.55 % of the largest gradient (Luo et al. 2016, section 4.1)."
    ),
}


@dataclass(frozen=True)
class Busy:
    """The activities in words."""

    layers: tuple[Activity, ...]
    sentence: str


def look_page(look: Look, *, run: RunFlow | None = None) -> str:
    """The page; `run` are the run's gradients, epoch by epoch, if it kept them."""
    return templates().get_template("look.html.j2").render(
        look=look,
        busy=busy(look),
        gradients=_gradients(run),
        readings=READINGS,
        png=png,
        significant=figures.significant,
    )  # fmt: skip


def busy(look: Look) -> Busy:
    """What the activities come to: how many channels are dead, and where most of a layer is."""
    judged = [each for each in look.activities if each.operation in ACTIVATIONS] or list(look.activities)
    with_dead = [each for each in judged if each.dead]
    dead, channels = sum(each.dead for each in with_dead), sum(each.channels for each in judged)
    n = len(look.images)
    over = f"on {'this image' if n == 1 else f'all {n} images'}"
    if not with_dead:
        return Busy(look.activities, f"No channel has one value everywhere {over}.")
    mostly = [each.layer for each in with_dead if each.dead >= MOSTLY * each.channels]
    more = f" Mostly dead: {', '.join(mostly[:5])}{' and more' if len(mostly) > 5 else ''}." if mostly else ""
    return Busy(
        look.activities,
        f"{dead:,} of {channels:,} channels have one value everywhere {over}, in {len(with_dead)} of {len(judged)} "
        f"{'activations' if judged[0].operation in ACTIVATIONS else 'layers'}; with few images that may be chance.{more}",
    )


def _gradients(run: RunFlow | None) -> tuple[Markup, Markup] | None:
    if run is None:
        return None
    return run_chart(run, [run], width=WIDE), run_chart(run, [run], width=NARROW)
