"""The pages of what is seen in a network: whole, without script, and safe from hostile names."""

from dataclasses import replace

import pytest

from convatlas.records.attribution import Attribution
from convatlas.records.gradients import GradientComparison, GradientFlow, LayerGradient, RunFlow
from convatlas.records.look import Activity, EffectiveField, Filters, Look, LookedAt, Maps
from convatlas.records.run import Prediction, Recipe
from convatlas.report.gradients import initial_page, network_rows, run_page
from convatlas.report.look import busy, look_page
from convatlas.report.standalone import standalone

from .pages import Page, drawings
from .samples import PICTURE
from .test_hostile import PAYLOADS


def seen(name="stages.0", **changes):
    attribution = Attribution(name, name, name, 3, name, PICTURE, 0.25, None, False, f"{name} fails the check")
    image = LookedAt(
        name,
        PICTURE,
        Prediction(name, (name, "other"), (0.9, 0.1)),
        (Maps(name, 16, (8, 8), (0, 1), -1.0, 2.0, PICTURE),),
        (attribution,),
    )
    activity = Activity(name, "ReLU", 0.1, 0.2, 0.0, 3.0, 0.5, 8, 6)
    whole = Look(
        model=name,
        weights=name,
        trained=True,
        input_shape=(3, 32, 32),
        images=(image,),
        filters=Filters(name, 16, (3, 3), 16, True, PICTURE),
        activities=(activity, replace(activity, layer="quiet", dead=0)),
        fields=(EffectiveField(name, 7.5, None, (32, 32), 1, PICTURE),),
        notes=(name,),
    )
    return replace(whole, **changes)


def flow(model="net", *, ratio=1.0, epoch=0, seed=0, similarity=0.5):
    layers = tuple(
        LayerGradient(f"{model}.{i}", "Conv2d", 10, 1.0, 0.5, 1.0, ratio ** (1 - i / 3) * 0.01) for i in range(4)
    )  # fmt: skip
    return GradientFlow(model, seed, epoch, 2.3, (*layers, replace(layers[0], name="head")), similarity)


def comparison(*flows, name="shapes"):
    return GradientComparison(name, 32, 128, (0,), "own", "own", "2.13", f"convatlas gradients {name}", tuple(flows))


def run(name="plain"):
    recipe = Recipe(model=name, data="shapes", data_fingerprint="", epochs=2, gradients=True)
    return RunFlow(name, recipe, tuple(flow(name, epoch=epoch) for epoch in range(3)))


def test_the_page_says_all_that_was_seen():
    page = Page(look_page(seen(), run=run()))
    assert "script" not in {element for element, _ in page.elements}
    for words in (
        "90.0\u202f%",
        "8 pixels wide in effect, the whole image in theory",
        "stages.0 fails the check",
        "25\u202f% of the logit's",
    ):
        assert words in page.text
    assert "6 of 16 channels have one value everywhere on this image, in 1 of 2 activations" in page.text
    assert "Mostly dead: stages.0." in page.text
    assert "What came back to each layer while it was trained" in page.text
    assert sum(element == "img" for element, _ in page.elements) == 5


def test_an_untrained_network_and_a_page_of_few_parts():
    few = seen(trained=False, filters=None, fields=(), activities=(), notes=())
    page = Page(look_page(replace(few, images=(replace(few.images[0], maps=(), attributions=()),))))
    assert "Untrained" in page.text
    assert "filters" not in page.text
    assert "How busy" not in page.text


def test_a_dead_channel_is_not_counted_before_its_activation_too():
    relu = seen().activities[0]
    both = seen(activities=(replace(relu, operation="BatchNorm2d"), relu))
    assert busy(both).sentence.startswith("6 of 8 channels have one value everywhere on this image, in 1 of 1 activations")
    assert busy(seen(activities=(replace(relu, operation="Mine"),))).sentence.startswith("6 of 8")


def test_no_dead_channels_are_said_too():
    quiet = seen(activities=(replace(seen().activities[0], dead=0),))
    assert busy(quiet).sentence == "No channel has one value everywhere on this image."


@pytest.mark.untraced  # many pages, whose lines other tests reach
@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_names(payload):
    pages = (
        look_page(seen(payload), run=run(payload)),
        initial_page(comparison(flow(payload), name=payload)),
        run_page([run(payload), run("other")]),
    )
    for text in pages:
        page = Page(text)
        elements = {element for element, _ in page.elements}
        assert not elements & {
            "script",
            "iframe",
            "object",
            "embed",
            "base",
            "link",
            "form",
            "foreignobject",
            "animate",
            "use",
            "a",
        }
        for _, attributes in page.elements:
            assert not any(key.startswith("on") for key in attributes)
            assert (attributes.get("src") or "data:image/png").startswith("data:image/png") or attributes["src"] == ""


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (1e6, "explodes: 1.0\u202f×\u202f10⁶ times larger at the first layer"),
        (1e-4, "vanishes: 1.0\u202f×\u202f10⁴ times smaller at the first layer"),
        (3.0, "stays within a factor of 100"),
        (0.0, "vanishes: nothing at all comes back to the first layer"),
    ],
)
def test_verdicts(ratio, verdict):
    """The classifier, whose gradient does not depend on depth, is left out."""
    (row,) = network_rows(comparison(flow(ratio=ratio)))
    assert row.verdict == verdict
    assert (row.layers, row.seeds) == (5, 1)


def test_medians_over_seeds():
    (row,) = network_rows(comparison(*(flow(ratio=ratio, seed=i) for i, ratio in enumerate((1.0, 5.0, 300.0)))))
    assert row.first == pytest.approx(0.05)
    assert row.seeds == 3


def test_charts_of_gradients_are_whole_drawings():
    text = initial_page(comparison(flow("a", ratio=1e-8), flow("b", ratio=0.0), flow("c")))
    assert len(drawings(text)) == 4, "two measures, wide and narrow"
    assert "10⁻¹⁰" in text
    alone = standalone(run_chart_of(run()))
    assert alone.startswith('<?xml version="1.0"')
    assert "prefers-color-scheme" in alone


def run_chart_of(one):
    from convatlas.report.gradients import run_chart

    return run_chart(one, [one], width=358)
