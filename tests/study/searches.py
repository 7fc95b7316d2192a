"""A plan with a search, on data that take no time."""

from convatlas.records.plan import FORMAT, Searched, StudyPlan, Tuning, Variant

from ..training.makers import CLASSES, small_recipe

LR = Searched("lr", 1e-5, 0.3, log=True)


def tuning(*searched, **changes):
    return Tuning(**{"trials": 3, "searched": searched or (LR,), "epochs": 2, **changes})


def variant(name="lenet", **changes):
    recipe = small_recipe(**{"model": "lenet.pocket", "epochs": 7, "test_each_epoch": True, **changes})
    return Variant(name, {}, recipe, params=1, macs=1, image_size=32, steps=None)


def plan(search, *variants):
    return StudyPlan(
        format=FORMAT,
        name="test",
        question="Does it?",
        date="2026-01-01",
        convatlas="0.1.0",
        factors=(),
        design="full",
        variants=variants or (variant(),),
        seeds=(0, 1),
        held=(),
        comparisons=(),
        equivalence=0.0,
        tuning=search,
        threads=1,
        processes=1,
        watched=True,
        data="shapes",
        data_description="colours",
        n_train=96,
        n_val=24,
        n_test=36,
        classes=CLASSES,
        source="",
    )
