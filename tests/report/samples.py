"""Records to render: eight models (or fewer), any number of seeds, every number known."""

from collections.abc import Sequence
from dataclasses import replace

from convatlas.records.run import Choices, Environment, EpochMetrics, Evaluation, Mistake, Recipe, RunRecord, RunSummary
from convatlas.records.study import Comparison, ComparisonRow, Interval

PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
FAMILIES = (
    ("lenet", "LeNet-5", 1998, 61_706, 421_640, 0.612, 3.4),
    ("alexnet", "AlexNet", 2012, 268_113, 9_412_000, 0.741, 9.6),
    ("vgg", "VGG", 2014, 271_245, 21_003_000, 0.823, 18.7),
    ("googlenet", "GoogLeNet", 2014, 268_907, 31_077_000, 0.851, 30.8),
    ("resnet", "ResNet", 2015, 272_474, 40_813_000, 0.868, 27.9),
    ("densenet", "DenseNet", 2016, 266_021, 58_144_000, 0.862, 62.3),
    ("efficientnet", "EfficientNet", 2019, 275_310, 18_255_000, 0.834, 44.1),
    ("convnext", "ConvNeXt", 2022, 270_666, 26_399_000, 0.791, 39.2),
)
ENVIRONMENT = Environment("0.1.0", "3.11.9", "2.10.0+cpu", "2.1.3", "Linux 6.8", "Imaginary CPU 8481C", 2, 7.75, None)
CHOICES = Choices("cpu", "bf16", "channels_last", 2, "the processor has AMX")
CLASSES = ("circle", "square", "triangle", "star")


def evaluation(accuracy: float, classes: Sequence[str] = CLASSES, *, n: int = 500) -> Evaluation:
    """Each class has `n` images, of which a share of `accuracy` is found, the rest called the next class."""
    size, right = len(classes), round(accuracy * n)
    rows = [[0] * size for _ in classes]
    for i in range(size):
        rows[i][i] += right
        rows[i][(i + 1) % size] += n - right
    worst = tuple(Mistake(17 * k + 3, classes[k % size], classes[(k + 1) % size], 0.99 - 0.01 * k, PICTURE) for k in range(4))
    return Evaluation(
        "test", n * size, right / n, None, 0.5, 1.0, tuple(classes), tuple(tuple(row) for row in rows), worst
    )  # fmt: skip


def run(index: int, seed: int = 0, *, classes: Sequence[str] = CLASSES, epochs: int = 5) -> RunRecord:
    """A finished run of the model at `index` of FAMILIES."""
    family, _, _, params, macs, accuracy, seconds = FAMILIES[index]
    recipe = Recipe(model=f"{family}.pocket", data="shapes", data_fingerprint="f3a9c1d2", epochs=epochs, seed=seed)
    accuracy += 0.004 * seed
    metrics = tuple(
        EpochMetrics(e, 70 * e, 9000 * e, seconds * e / epochs, 0.001, 2.3 / e, 0.5, 1.1, accuracy * (1 - 0.5 / e), 900.0)
        for e in range(1, epochs + 1)
    )
    test = evaluation(accuracy, classes)
    summary = RunSummary(
        status="finished", cause=None, model=recipe.model, family=family, data="shapes", seed=seed, image_size=32, in_chans=3,
        num_classes=len(classes), params=params, macs=macs, n_train=9000, n_val=1000, n_test=test.n, epochs_done=epochs,
        images_seen=9000 * epochs, train_seconds=seconds, images_per_second=9000 * epochs / seconds,
        val_accuracy=metrics[-1].val_accuracy, test_accuracy=test.top1, test_looks=1, skipped_images=(), choices=CHOICES,
        environment=ENVIRONMENT,
    )  # fmt: skip
    return RunRecord(recipe, summary, metrics, test)


def row(runs: Sequence[RunRecord], *, title: str, year: int | None = None, half: float = 0.016) -> ComparisonRow:
    """The row over `runs` of one model, its interval `half` to both sides."""
    one = runs[0].summary
    accuracies = tuple(each.summary.test_accuracy or 0.0 for each in runs)
    mean = sum(accuracies) / len(accuracies)
    interval = Interval(mean, mean - half, mean + half, len(runs), "an invented method")
    seeds = tuple(each.summary.seed for each in runs)
    folders = tuple(f"runs/{one.model}-seed{seed}" for seed in seeds)
    return ComparisonRow(
        one.model, one.family, title, year, one.params, one.macs, one.image_size, seeds, interval, accuracies,
        one.train_seconds, one.images_seen, one.images_per_second, folders,
    )  # fmt: skip


def comparison(rows: Sequence[ComparisonRow], runs: Sequence[RunRecord], *, seeds: Sequence[int] = (0,)) -> Comparison:
    """A complete comparison of these rows."""
    return Comparison(
        name="first-look", date="2025-06-02 14:31", command="convatlas compare --epochs 5", complete=True, budget="5 epochs",
        data="shapes", data_description="coloured shapes on textures", n_train=9000, n_val=1000, n_test=2000, classes=CLASSES,
        models=tuple(each.model for each in rows), seeds=tuple(seeds), recipe=runs[0].recipe, rows=tuple(rows),
        environment=ENVIRONMENT,
    )  # fmt: skip


def study(
    indices: Sequence[int] = range(8), *, seeds: Sequence[int] = (0,), epochs: int = 5
) -> tuple[Comparison, list[RunRecord]]:
    """A complete comparison of some of FAMILIES, with its runs."""
    rows, runs = [], []
    for index in indices:
        own = [run(index, seed, epochs=epochs) for seed in seeds]
        rows.append(row(own, title=FAMILIES[index][1], year=FAMILIES[index][2]))
        runs += own
    return comparison(rows, runs, seeds=seeds), runs


def unfinished(one: RunRecord, cause: str) -> RunRecord:
    """The run as it is when it failed."""
    return replace(one, summary=replace(one.summary, status="failed", cause=cause, test_accuracy=None), test=None)
