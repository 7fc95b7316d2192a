"""What a run is: the recipe that went in, and what was measured. These are the files of a run folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from convatlas.records import codec
from convatlas.records.engine import ConvChoice, Reason
from convatlas.records.naming import weights_name
from convatlas.records.tuning import Tuning
from convatlas.records.weights import Preprocessing

Line = TypeVar("Line")
TEST_EPOCHS = "test_epochs.jsonl"
"""Where `TestEpoch`s are kept in a run folder."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a run, apart from the machine. Exactly one of `epochs` and `minutes` is set.
    `name` is that of the recipe in `convatlas recipes` that it came from, if any.

    `lr` is the peak learning rate; `warmup` the share of the budget spent on warming up; `ema` the decay per step of the
    weights' moving average (0: none); `clip_grad` the largest gradient norm (0: no clipping). `crop` is by how many pixels
    at most images are shifted (0: not at all; None: an eighth of their side); `cutout` the side of the square that is
    blanked, in pixels (0: none); `validation` the share of the training images held out where the data has no validation
    split of its own. `data_fingerprint` identifies the data's content, so that a run is never continued or judged on other
    data. `gradients` says whether gradients are measured, and kept, once an epoch; it does not change the outcome.

    `flip_rule` is "random", or "alternating": each image is mirrored in every second epoch. `crop_fill` says what moves in at
    the border: "zeros", or the image's "reflect"ion. `sizes` holds (share of the epochs, pixels a side): up to that share images
    are scaled to that size; after the last one they have their own. `bias_lr` and `classifier_lr` are multiples of `lr` for
    biases and norms, and for the last linear layer. `test_average` says over which views of an image the answers are averaged
    when the network is judged: "none", "mirror", "mirror+shift" (by one pixel, both ways along the diagonal), or "mirror+3x3" (by
    up to one pixel each way: nine places).

    `compile` is "auto", "on", "off", or "graphs": on a GPU, steps are recorded as CUDA graphs. `convolutions` is "auto", "stock"
    (torch's own, and so is pooling; on a GPU those that cuDNN expects to be the fastest) or "trial" (the fastest found by trial).
    `sync_batchnorm`: where several processes train together, BatchNorm takes its statistics over the images of all.

    `data_fraction` of the training images that are left after validation is trained on, class by class. With `test_each_epoch`
    the test split is looked at after every epoch and the accuracy kept in `test_epochs.jsonl`, for a study's report alone:
    nothing is chosen by it.

    `code_sha256` is that of the Python file that makes the network, where `model` names one (`net.py:make`): the run is not gone
    on with or judged by another.

    With `patience` the run ends once the loss on validation was no better for so many epochs, and the best epoch's weights are
    kept (0: it never does). `tuning` is there where a pretrained network is fine-tuned.

    `parted` is the share of all pictures held out for validation where they come without any splits (None: 15 %); where there is
    `tuning`, its `validation` says so.

    `augment` is what is done to each image before it is mirrored and shifted: "none", or the drawn operations of "trivial" or
    "rand" (`convatlas.data.operating`); `mixup` and `cutmix` are the alphas by which images of a batch are mixed (0: off). Where
    there is `tuning`, its own `policy`, `mixup` and `cutmix` hold instead.
    """

    model: str
    data: str
    data_fingerprint: str
    epochs: int | None = None
    minutes: float | None = None
    seed: int = 0
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 0.003
    momentum: float = 0.9
    weight_decay: float = 0.05
    schedule: str = "one-cycle"
    warmup: float = 0.2
    label_smoothing: float = 0.1
    ema: float = 0.0
    clip_grad: float = 1.0
    flip: bool = True
    crop: int | None = None
    cutout: int = 0
    validation: float = 0.1
    image_size: int | None = None
    precision: str = "auto"
    memory_format: str = "auto"
    device: str = "auto"
    skip_unreadable: bool = False
    gradients: bool = False
    name: str | None = None
    flip_rule: str = "random"
    crop_fill: str = "zeros"
    sizes: tuple[tuple[float, ...], ...] = ()
    bias_lr: float = 1.0
    classifier_lr: float = 1.0
    test_average: str = "none"
    compile: str = "auto"
    convolutions: str = "auto"
    sync_batchnorm: bool = False
    data_fraction: float = 1.0
    test_each_epoch: bool = False
    code_sha256: str | None = None
    patience: int = 0
    tuning: Tuning | None = None
    augment: str = "none"
    mixup: float = 0.0
    cutmix: float = 0.0
    parted: float | None = None

    @property
    def shared(self) -> "Recipe":
        """As others may read it: of the weights it began with only the file's name, since where they lay is nobody's business."""
        if self.tuning is None or self.tuning.weights is None:
            return self
        return replace(self, tuning=replace(self.tuning, weights=weights_name(self.tuning.weights)))


@dataclass(frozen=True)
class Choices:
    """What `auto` in the recipe came to on this machine, and why. `reason` is that of the precision; `reasons` has the others.

    `settled`: trials, if any, are done. `convolutions` are those that were tried; a shape that is not among them has torch's
    own algorithm. `substitutes`: layers that have one are computed by it, whatever `convolutions` says of them
    (`training/substitutes.py`). `kernels_tried`: on a GPU, cuDNN times its kernels (benchmark mode); so it also does where this
    is None, as in older records. `processes` train together, with `threads` each. `recorded`: steps are recorded as CUDA graphs.
    Where memory was short, `checkpointing` computes activations twice instead of keeping them, and a batch comes in `parts`.
    """

    device: str
    precision: str
    memory_format: str
    threads: int
    reason: str
    compiled: bool = False
    convolutions: tuple[ConvChoice, ...] = ()
    reasons: tuple[Reason, ...] = ()
    settled: bool = False
    processes: int = 1
    recorded: bool = False
    checkpointing: bool = False
    parts: int = 1
    substitutes: bool = False
    kernels_tried: bool | None = None


@dataclass(frozen=True)
class Environment:
    """Where and with what a run was made."""

    convatlas: str
    python: str
    torch: str
    numpy: str
    system: str
    processor: str
    cores: int
    memory_gib: float
    accelerator: str | None


@dataclass(frozen=True)
class ModelConfig:
    """What is needed to use the weights of a run: `config.json`, shared together with `model.safetensors`.

    Images are RGB or grey in [0, 1]: the shorter side is brought to `resize` pixels (None: to `image_size`) by `interpolation`,
    the middle square of `image_size` cut out, then (x - mean) / std per channel. Probabilities are the softmax of logits /
    `temperature`. `weights_sha256` is that of `model.safetensors`; the accuracies in [0, 1] are those of the run, None where it
    has no such images or has not been judged. `recipe` is how the weights were made, as `Recipe.shared` has it.
    """

    model: str
    num_classes: int
    in_chans: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    convatlas: str
    resize: int | None = None
    temperature: float = 1.0
    interpolation: str = "bicubic"
    weights_sha256: str | None = None
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    recipe: Recipe | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """The same in the terms of published weights: the shorter side brought to `resize`, the middle square."""
        return Preprocessing(self.mean, self.std, self.resize or self.image_size, self.image_size, self.interpolation)


@dataclass(frozen=True)
class EpochMetrics:
    """One line of `metrics.jsonl`. Losses in nats; accuracies in [0, 1]; `seconds` of training since the run began.

    `train_loss` and `train_accuracy` are means over the epoch's augmented batches, while the weights still changed.
    """

    epoch: int
    step: int
    images_seen: int
    seconds: float
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    images_per_second: float


@dataclass(frozen=True)
class Mistake:
    """One wrong prediction: which image of the split, the classes, the model's probability for its answer, and a PNG data URL."""

    index: int
    truth: str
    predicted: str
    confidence: float
    picture: str


@dataclass(frozen=True)
class Evaluation:
    """A model's outcome on one split. `confusion[i][j]` counts images of class i that were called class j.

    `top1` and `top5` in [0, 1] (`top5` is None for fewer than six classes); `loss` is the cross-entropy in nats. `average` names
    the views of an image over which the answers were averaged ("none": the image alone). Logits are divided by the network's
    temperature first, which `loss` and the confidences of `worst` follow.
    """

    split: str
    n: int
    top1: float
    top5: float | None
    loss: float
    seconds: float
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    worst: tuple[Mistake, ...]
    average: str = "none"


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image: the likeliest classes with their probabilities in [0, 1], likeliest first.

    `error` says why there is none, for a file that is no picture.
    """

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    error: str | None = None


@dataclass(frozen=True)
class TestLook:
    """One look at the sealed test split: when (UTC), the accuracy seen, and which look it was, counted from 1."""

    date: str
    top1: float
    look: int


@dataclass(frozen=True)
class TestEpoch:
    """A line of `test_epochs.jsonl`: the accuracy in [0, 1] on the test split after an epoch, counted from 1."""

    epoch: int
    top1: float


@dataclass(frozen=True)
class RunSummary:
    """`summary.json`. `status` is running, finished, interrupted or failed; `cause` says why it failed.

    `macs` holds for one image of `image_size`; `train_seconds` leaves evaluation and set-up out; `test_looks` counts how
    often the test split was looked at; `skipped_images` names unreadable images that were left out. `best_epoch` is the one whose
    weights were kept, where the recipe has patience.
    """

    status: str
    cause: str | None
    model: str
    family: str
    data: str
    seed: int
    image_size: int
    in_chans: int
    num_classes: int
    params: int
    macs: int
    n_train: int
    n_val: int
    n_test: int
    epochs_done: int
    images_seen: int
    train_seconds: float
    images_per_second: float
    val_accuracy: float | None
    test_accuracy: float | None
    test_looks: int
    skipped_images: tuple[str, ...]
    choices: Choices
    environment: Environment
    best_epoch: int | None = None


@dataclass(frozen=True)
class RunRecord:
    """A whole run as its folder tells it, without the weights."""

    recipe: Recipe
    summary: RunSummary
    metrics: tuple[EpochMetrics, ...]
    test: Evaluation | None


def read_metrics(path: Path) -> tuple[EpochMetrics, ...]:
    """The epochs in `metrics.jsonl`; a torn last line (a crash while writing) is left out. A missing file has none."""
    if not path.exists():
        return ()
    return _lines(EpochMetrics, path)


def read_test_epochs(path: Path) -> tuple[TestEpoch, ...]:
    """The epochs in `test_epochs.jsonl`, as `read_metrics` reads."""
    return _lines(TestEpoch, path) if path.exists() else ()


def read_test_looks(path: Path) -> tuple[TestLook, ...]:
    """The looks at the test split in `test_looks.jsonl`, as `read_metrics` reads."""
    return _lines(TestLook, path) if path.exists() else ()


def _lines(kind: type[Line], path: Path) -> tuple[Line, ...]:
    """The whole lines of a file of records."""
    complete = codec.text_of(path).split("\n")[:-1]
    return tuple(codec.from_text(kind, line, where=f"{path}:{i}") for i, line in enumerate(complete, 1) if line)


def read_run(folder: Path) -> RunRecord:
    """The run in `folder`. Raises UserError when it holds none."""
    test = folder / "test.json"
    return RunRecord(
        recipe=codec.read(Recipe, folder / "recipe.json"),
        summary=codec.read(RunSummary, folder / "summary.json"),
        metrics=read_metrics(folder / "metrics.jsonl"),
        test=codec.read(Evaluation, test) if test.exists() else None,
    )
