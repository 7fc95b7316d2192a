"""A study to render, every number known: variants of one factor or two, any number of seeds, nothing trained."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from convatlas.records.findings import Answers, Effect, Failure, Findings, Speed, VariantFindings
from convatlas.records.gradients import GradientFlow, LayerGradient
from convatlas.records.look import Look, LookedAt, Maps
from convatlas.records.plan import Factor, Held, PlannedComparison, StudyPlan, Variant
from convatlas.records.run import (
    EpochMetrics,
    Evaluation,
    Mistake,
    Prediction,
    Recipe,
    RunRecord,
    RunSummary,
    TestEpoch,
    TestLook,
)
from convatlas.records.study import Interval
from convatlas.records.study_folder import StudyRun, run_folder

from ..samples import CHOICES, ENVIRONMENT, PICTURE

CLASSES = ("circle", "square", "triangle", "star")
N = 200
BASE = 60
"""Of 100 answers of the first variant in seed 0, so many are right; each later variant has 10 more, each later seed 2 more."""


def interval(values: Sequence[float], half: float = 0.02, method: str = "an invented method") -> Interval:
    mean = fmean(values)
    return Interval(mean, max(mean - half, 0.0), min(mean + half, 1.0), len(values), method)


def answers(rank: int, seed: int, classes: Sequence[str] = CLASSES) -> Answers:
    """The images that are right are the first of each hundred, so that a better variant is right wherever a worse one is."""
    labels = tuple(i % len(classes) for i in range(N))
    right = [i % 100 < BASE + 10 * rank + 2 * seed for i in range(N)]
    predicted = tuple(label if fine else (label + 1) % len(classes) for label, fine in zip(labels, right, strict=True))
    return Answers("test", labels, predicted, tuple(0.5 + 0.4 * (i % 10) / 10 for i in range(N)))


def evaluation(given: Answers, classes: Sequence[str] = CLASSES) -> Evaluation:
    size = len(classes)
    confusion = [[0] * size for _ in classes]
    for label, said in zip(given.labels, given.predicted, strict=True):
        confusion[label][said] += 1
    wrong = [i for i, (a, b) in enumerate(zip(given.labels, given.predicted, strict=True)) if a != b]
    worst = tuple(
        Mistake(i, classes[given.labels[i]], classes[given.predicted[i]], 0.99 - 0.01 * k, PICTURE)
        for k, i in enumerate(wrong[:4])
    )
    top1 = sum(a == b for a, b in zip(given.labels, given.predicted, strict=True)) / N
    return Evaluation("test", N, top1, None, 0.5, 1.0, tuple(classes), tuple(map(tuple, confusion)), worst)


def flow(name: str, seed: int, epoch: int, layers: int = 5) -> GradientFlow:
    made = tuple(
        LayerGradient(f"{name}.{i}", "Conv2d", 10, 1.0, 0.01 * (i + 1) * (epoch + 1), 1.0, 0.1) for i in range(layers)
    )  # fmt: skip
    return GradientFlow(name, seed, epoch, 2.3, made)


def look(name: str, stages: int = 2, images: int = 2) -> Look:
    maps = tuple(
        Maps(layer, 16, (8, 8), (0, 1), -1.0, 2.0, PICTURE) for layer in ("stem", *(f"stages.{i}" for i in range(stages)))
    )
    seen = tuple(
        LookedAt(f"validation image {i}, circle", PICTURE, Prediction("x", ("circle", "star"), (0.75, 0.25)), maps, ())
        for i in range(images)
    )
    return Look(name, f"{name} as trained", True, (3, 32, 32), seen, None, (), (), ())


def variant(name: str, levels: dict[str, str], rank: int = 0) -> Variant:
    recipe = Recipe(model=name, data="shapes", data_fingerprint="f3a9", epochs=3, lr=0.001 * (rank + 1), gradients=True)
    return Variant(
        name, levels, recipe, 270_000 + 100 * rank, 41_000_000 * (rank + 1), 32, 210, 1.0 + 0.125 * rank if rank else None
    )


def run(one: Variant, rank: int, seed: int) -> StudyRun:
    """A finished run of the variant at `rank`, its numbers those of its answers."""
    given = answers(rank, seed)
    test = evaluation(given)
    metrics = tuple(
        EpochMetrics(e, 70 * e, 9000 * e, 4.0 * e * (rank + 1), 0.001, 2.4 / e, 0.5, 1.1, test.top1 * e / 3, 900.0)
        for e in (1, 2, 3)
    )
    summary = RunSummary(
        status="finished", cause=None, model=one.recipe.model, family="mine", data="shapes", seed=seed, image_size=32, in_chans=3,
        num_classes=4, params=one.params, macs=one.macs, n_train=9000, n_val=1000, n_test=N, epochs_done=3, images_seen=27000,
        train_seconds=12.5 * (rank + 1), images_per_second=2160.0, val_accuracy=metrics[-1].val_accuracy, test_accuracy=test.top1,
        test_looks=1, skipped_images=(), choices=CHOICES, environment=ENVIRONMENT,
    )  # fmt: skip
    return StudyRun(
        folder=run_folder(one.name, seed),
        variant=one.name,
        seed=seed,
        record=RunRecord(replace(one.recipe, seed=seed), summary, metrics, test),
        answers=given,
        flows=tuple(flow(one.name, seed, epoch) for epoch in range(4)),
        look=look(one.name) if seed == 0 else None,
        looks=(TestLook("2026-01-05T10:11:12+00:00", test.top1, 1),),
        test_epochs=(TestEpoch(1, 0.3), TestEpoch(2, test.top1 + 0.01), TestEpoch(3, test.top1)),
    )


def found(one: Variant, runs: Sequence[StudyRun], rank: int = 0) -> VariantFindings:
    tops = tuple(each.record.test.top1 for each in runs if each.record.test)
    classes = tuple(interval([0.5 + 0.1 * i + 0.02 * rank]) for i in range(len(CLASSES)))
    speed = Speed(
        64, 7, interval([0.004 * (rank + 1)], 0.0005), interval([0.009 * (rank + 1)], 0.0005), Interval(1234.0 / (rank + 1), 1100.0, 1300.0, 7, "x"),
        Interval(321.0, 300.0, 340.0, 7, "x"), 24_000_000 * (rank + 1), 210_000_000, None,
    )  # fmt: skip
    return VariantFindings(
        name=one.name, runs=tuple(each.folder for each in runs), seeds=tuple(each.seed for each in runs),
        top1=interval(tops) if tops else None, top1_of_seeds=tops, top5=None, validation=interval(tops, 0.03) if tops else None,
        calibration_error=interval([0.0625]), per_class=classes, train_seconds=12.5 * (rank + 1), train_images_per_second=2160.0,
        optimism=Interval(0.01, 0.004, 0.016, len(runs), "x"), test_looks=4 * len(runs), speed=speed, failures=(),
    )  # fmt: skip


def effect(first: str, second: str, mean: float, half: float, verdict: str, seeds: Sequence[int] = (0, 1, 2)) -> Effect:
    difference = Interval(mean, mean - half, mean + half, len(seeds), "Student's t over paired seeds")
    p = {"better": 0.012, "worse": 0.012}.get(verdict, 0.34)
    return Effect(
        first, second, tuple(seeds), difference, p, min(1.0, 2 * p), 1.75, None, verdict, f"{first} and {second}: {verdict}."
    )


def make(variants: Sequence[Variant], factors: Sequence[Factor], seeds: Sequence[int], effects: Sequence[Effect]):
    """Findings and runs of a complete study."""
    runs = [run(one, rank, seed) for rank, one in enumerate(variants) for seed in seeds]
    rows = [found(one, [each for each in runs if each.variant == one.name], rank) for rank, one in enumerate(variants)]
    plan = StudyPlan(
        format=1, name="first", question="Does the shortcut help?", date="2026-01-05 10:11 UTC", convatlas="0.1.0",
        factors=tuple(factors), design="full factorial", variants=tuple(variants), seeds=tuple(seeds),
        held=(Held("params", 270_000, 0.02),), comparisons=tuple(PlannedComparison(each.first, each.second) for each in effects),
        equivalence=0.005, tuning=None, threads=1, processes=1, watched=True, data="shapes", data_description="coloured shapes",
        n_train=9000, n_val=1000, n_test=N, classes=CLASSES, source="studies/first.yaml",
    )  # fmt: skip
    findings = Findings(
        format=1, plan=plan, complete=True, missing=(), variants=tuple(rows), effects=tuple(effects), tuned=(),
        optimism=Interval(0.01, 0.006, 0.014, len(runs), "x"), test_looks=4 * len(runs), date="2026-01-06T09:08:07+00:00",
        command="convatlas study resume first", environment=ENVIRONMENT,
    )  # fmt: skip
    return findings, tuple(runs)


def study(seeds: Sequence[int] = (0, 1, 2)):
    """Three variants of one factor: `plain` is worse than `short`, and that than `long`, in the numbers as in the verdicts."""
    names = ("plain", "short", "long")
    variants = [variant(name, {"shortcut": name}, rank) for rank, name in enumerate(names)]
    effects = (effect("plain", "short", -0.1, 0.03, "worse", seeds), effect("short", "long", -0.02, 0.05, "undecided", seeds))
    return make(variants, [Factor("shortcut", names)], seeds, effects)


def grid():
    """Two factors of two levels each."""
    levels = [(depth, norm) for depth in ("20", "56") for norm in ("batch", "none")]
    variants = [variant(f"{d}-{n}", {"depth": d, "norm": n}, rank) for rank, (d, n) in enumerate(levels)]
    factors = [Factor("depth", ("20", "56")), Factor("norm", ("batch", "none"))]
    return make(variants, factors, (0, 1), (effect("20-batch", "20-none", 0.001, 0.003, "equivalent", (0, 1)),))


def unfinished():
    """The last variant has failed in seed 2, and seed 1 of the second has not begun."""
    findings, runs = study()
    kept = [each for each in runs if (each.variant, each.seed) not in (("long", 2), ("short", 1))]
    lost = next(each for each in runs if (each.variant, each.seed) == ("long", 2))
    summary = replace(lost.record.summary, status="failed", cause="the loss was not finite", test_accuracy=None)
    kept.append(
        StudyRun(lost.folder, "long", 2, RunRecord(lost.record.recipe, summary, lost.record.metrics[:1], None))
    )  # fmt: skip
    rows = []
    for rank, row in enumerate(findings.variants):
        own = [each for each in kept if each.variant == row.name and each.record.test is not None]
        rows.append(found(findings.plan.variants[rank], own, rank))
    rows[2] = replace(rows[2], failures=(Failure("long, seed 2", 2, "the loss was not finite"),))
    undecided = replace(findings.effects[0], difference=None, p=None, p_adjusted=None, effect_size=None, verdict="undecided")
    return replace(
        findings, complete=False, missing=("short, seed 1", "long, seed 2"), variants=tuple(rows),
        effects=(undecided, findings.effects[1]),
    ), tuple(kept)  # fmt: skip
