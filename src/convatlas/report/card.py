"""The model card of a fine-tuned network: README.md of the folder that is shared (Mitchell et al. 2019, "Model Cards")."""

from collections.abc import Sequence

from convatlas.records.errors_look import ErrorReport
from convatlas.records.run import ModelConfig, Recipe, RunSummary
from convatlas.records.study import Interval
from convatlas.report import figures
from convatlas.report.begun import begun_with
from convatlas.report.errors_look import SPLITS, scaled
from convatlas.report.plain import plain


def model_card(
    config: ModelConfig, recipe: Recipe, summary: RunSummary, errors: ErrorReport, *, data: str, licence: str | None
) -> str:
    """The card as Markdown, with the front matter that the Hugging Face hub reads. `licence`: of the weights begun with."""
    tuning = recipe.tuning
    assert tuning is not None
    begun = _cell(begun_with(config.model, tuning.weights))
    accuracy = errors.accuracy
    return "\n".join(
        [
            "---",
            "library_name: convatlas",
            "pipeline_tag: image-classification",
            *([f"license: {licence.lower()}"] if licence else []),
            "---",
            "",
            f"# {config.model} for {config.num_classes} classes",
            "",
            f"{config.model}, begun with {begun}, fine-tuned with ConvAtlas by the strategy `{tuning.strategy}`.",
            "",
            "## What it is for",
            "",
            f"It names the likeliest of {config.num_classes} classes for a photograph: {_some(config.classes)}. It was made for "
            "images like those it was trained on, and answers with one of these classes whatever it is shown. It is no basis for "
            "decisions about people.",
            "",
            "## How good it is",
            "",
            f"{figures.percent(accuracy.mean)} of {errors.n} {SPLITS.get(errors.split, errors.split)} images (95 % interval "
            f"{figures.percent(accuracy.low)} to {figures.percent(accuracy.high)}; {accuracy.method}). {_calibration(errors)}",
            "",
            *(line for note in errors.notes for line in (f"{_cell(note)}.", "")),
            "| class | found (recall) | right when said (precision) | images |",
            "|---|---|---|---|",
            *(_row(score.name, score.recall, score.precision, score.n) for score in errors.scores),
            "",
            "## Data",
            "",
            f"{_cell(data)}. {summary.n_train:,} training, {summary.n_val:,} validation and {summary.n_test:,} test images; the "
            f"test images were looked at {summary.test_looks} time{'s' if summary.test_looks != 1 else ''}.",
            "",
            "## Input",
            "",
            f"RGB, or grey for one channel: the shorter side is brought to {config.resize or config.image_size} pixels "
            f"({config.interpolation}), the middle {config.image_size} x {config.image_size} cut out, then (x / 255 - "
            f"{_numbers(config.mean)}) / "
            f"{_numbers(config.std)}. Probabilities are the softmax of logits / {config.temperature:.4g}.",
            "",
            "## Use",
            "",
            "```",
            "convatlas predict FOLDER PICTURES...",
            "```",
            "",
            "```python",
            "import convatlas as ca",
            'model = ca.load("FOLDER")',
            'model.predict(["picture.jpg"])',
            "```",
            "",
            "## Licence",
            "",
            f"The weights it began with: {licence or 'not stated'}. The terms of their data (ImageNet's: research and teaching "
            "only) and of yours may reach further.",
            "",
            f"Made with ConvAtlas {config.convatlas}, PyTorch {summary.environment.torch}, in "
            f"{figures.duration(summary.train_seconds)} of training; the whole recipe is in `recipe.json`, "
            "checksums in `manifest.json`.",
            "",
        ]
    )


def _calibration(errors: ErrorReport) -> str:
    if not scaled(errors):
        return f"Expected calibration error {errors.before.error:.3f}; no temperature was fitted."
    return (
        f"Expected calibration error {errors.after.error:.3f} with the temperature {errors.temperature:.3g}, "
        f"{errors.before.error:.3f} without."
    )


def _row(name: str, recall: Interval | None, precision: Interval | None, n: int) -> str:
    return f"| {_cell(name)} | {_share(recall)} | {_share(precision)} | {n} |"


def _share(interval: Interval | None) -> str:
    return "-" if interval is None else figures.percent(interval.mean)


def _cell(text: str) -> str:
    """Text from outside, in which nothing is Markdown or HTML, or hides or reorders what stands around it."""
    return "".join("\\" + letter if letter in "|\\`*_[]<>#&!~$" else letter for letter in plain(" ".join(text.split())))


def _some(classes: Sequence[str]) -> str:
    shown = ", ".join(_cell(name) for name in classes[:20])
    return shown + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
