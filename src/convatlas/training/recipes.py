"""Named recipes: whole settings of a run, each with where it comes from and what it reached. No torch here.

`convatlas train --recipe NAME` begins with one; any option beside it replaces its setting.
"""

from dataclasses import dataclass, replace

from convatlas.errors import unknown_name
from convatlas.records.run import Recipe


@dataclass(frozen=True)
class Reached:
    """What a recipe reached: `accuracies` in [0, 1] on the test split, one a seed; `seconds` of training, their mean.

    `machine` is one of `MACHINES`; `settings` says in what the runs differed from the recipe, or what else is to be known of
    their seconds.
    """

    data: str
    accuracies: tuple[float, ...]
    seconds: float
    machine: str
    date: str
    settings: str = ""


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe, what it is for, where it comes from, and what it reached (None: not yet measured)."""

    purpose: str
    provenance: str
    recipe: Recipe
    reached: tuple[Reached, ...] = ()


MACHINES = {
    "two cores": "two cores of an AMD EPYC with AVX-512 BF16, 0.4 to 0.9 TFLOP/s as neighbours on the machine let them",
    "H100": "one NVIDIA H100",
    "H200": "one NVIDIA H200",
}
"""Where results were measured: a short name, and what stands behind it."""
AIRBENCH = (
    "Jordan 2024, arXiv:2404.00498 (whitened patches, identity filters, alternating flip, strong label smoothing, averaged "
    "test views) and Jordan et al. 2024 (Muon)"
)

STRONGER = "cutout (DeVries & Taylor 2017), RandAugment (Cubuk et al. 2020) and images of 24 pixels in the first epochs"
WITHOUT = "without RandAugment, judged by mirror+shift"


def _fast(
    model: str,
    *,
    epochs: int,
    cutout: int,
    crop: int,
    lr: float,
    biases: float = 53.0,
    classifier: float = 670.0,
    augment: str = "none",
    average: str = "mirror+shift",
) -> Recipe:
    """What the fast recipes share. `lr` is the rate of the filters, `biases` and `classifier` are those of the others.

    The head divides by the number of its inputs F, so that a step of the classifier moves answers by 1 / F, and what is right for
    256 inputs throws a network of 72 to where it learns no more (docs/LOG.md).
    """
    return Recipe(
        model=model,
        data="cifar10",
        data_fingerprint="",
        epochs=epochs,
        batch_size=1000,
        optimizer="muon",
        lr=lr,
        momentum=0.6,
        bias_lr=biases / lr,
        classifier_lr=classifier / lr,
        weight_decay=0.0,
        warmup=0.0,
        label_smoothing=0.2,
        clip_grad=0.0,
        flip_rule="alternating",
        crop=crop,
        crop_fill="reflect",
        cutout=cutout,
        sizes=((0.45, 24),),
        test_average=average,
        validation=0.0,
        augment=augment,
    )


RECIPES: dict[str, NamedRecipe] = {
    "teaching": NamedRecipe(
        "the yardstick: the loop that courses teach, kept as slow as it is",
        "PyTorch's tutorial loop with Adam (Kingma & Ba 2015): fp32, NCHW, eager, constant rate",
        Recipe(
            model="resnet.pocket",
            data="cifar10",
            data_fingerprint="",
            epochs=10,
            optimizer="adam",
            lr=0.001,
            weight_decay=0.0,
            schedule="constant",
            warmup=0.0,
            label_smoothing=0.0,
            clip_grad=0.0,
            precision="fp32",
            memory_format="contiguous",
            compile="off",
            convolutions="stock",
        ),
        (Reached("CIFAR-10", (0.7863,), 531, "two cores", "2026-11-27"),),
    ),
    "standard": NamedRecipe(
        "what papers train CIFAR-10 with, in fewer epochs",
        "He et al. 2015, section 4.2 (momentum, batches of 128, shift and mirror), with a cosine (Loshchilov & Hutter 2017)",
        Recipe(
            model="resnet.pocket",
            data="cifar10",
            data_fingerprint="",
            epochs=30,
            optimizer="sgd",
            lr=0.1,
            weight_decay=5e-4,
            schedule="cosine",
            warmup=0.05,
            label_smoothing=0.0,
            clip_grad=0.0,
        ),
        (Reached("CIFAR-10", (0.9012,), 805, "two cores", "2026-11-27"),),
    ),
    "fast94": NamedRecipe(
        "94 % on CIFAR-10 in as little time as we know how",
        f"ours, after {AIRBENCH}, with images of 24 pixels in the first epochs",
        _fast("compact94", epochs=10, cutout=0, crop=2, lr=0.2, average="mirror+3x3"),
        (
            Reached("CIFAR-10", (0.9404, 0.9411, 0.9411), 386, "two cores", "2026-11-27"),
            Reached(
                "CIFAR-10",
                (0.9390, 0.9402, 0.9397, 0.9437, 0.9401),
                4.9,
                "H200",
                "2026-11-27",
                "12.4 s the first, 3 s each other",
            ),
            Reached(
                "CIFAR-10",
                (0.9416, 0.9402, 0.9411),
                6.2,
                "H200",
                "2026-11-28",
                "10.1 s the first, 4.1 and 4.5 s the others, with cuDNN's trials; without, as since, 3.0 s (by noise)",
            ),
            Reached("CIFAR-10", (0.9426, 0.9410, 0.9422, 0.9396, 0.9413), 3.4, "H200", "2026-11-26", "judged by mirror+shift"),
            Reached("CIFAR-10", (0.9383, 0.9404, 0.9406), 3.86, "H100", "2026-11-26", "judged by mirror+shift"),
        ),
    ),
    "fast96": NamedRecipe(
        "96 % on CIFAR-10 in as little time as we know how",
        f"ours, after {AIRBENCH}, with {STRONGER}",
        _fast("compact96", epochs=60, cutout=12, crop=4, lr=0.16, augment="rand", average="mirror+3x3"),
        (
            Reached("CIFAR-10", (0.9648,), 8934, "two cores", "2026-11-27"),
            Reached(
                "CIFAR-10", (0.9642, 0.9631, 0.9605, 0.9637), 55, "H200", "2026-11-27", "seconds of the last, which ran alone"
            ),
            Reached("CIFAR-10", (0.9627,), 39.5, "H200", "2026-11-28", "copies to the GPU no longer wait; another machine"),
            Reached("CIFAR-10", (0.9577,), 40.2, "H200", "2026-11-27", "40 epochs"),
            Reached("CIFAR-10", (0.9571,), 3600, "two cores", "2026-11-27", f"24 epochs, {WITHOUT}"),
            Reached("CIFAR-10", (0.9550, 0.9529, 0.9549), 14.9, "H200", "2026-11-26", f"24 epochs, {WITHOUT}"),
        ),
    ),
    "compact1m": NamedRecipe(
        "the most from fewer than a million parameters",
        f"ours, after {AIRBENCH}, with {STRONGER}",
        _fast("compact1m", epochs=150, cutout=8, crop=4, lr=0.1, biases=26.5, classifier=80.0, augment="rand"),
        (
            Reached("CIFAR-10", (0.9582,), 5375, "two cores", "2026-11-27"),
            Reached("CIFAR-10", (0.9483,), 168, "H200", "2026-11-26", "without RandAugment, to epoch 105 on an H100"),
            Reached("CIFAR-10", (0.95,), 2023, "two cores", "2026-11-27", "60 epochs, without RandAugment"),
        ),
    ),
    "compact300k": NamedRecipe(
        "the most from fewer than 300,000 parameters",
        f"ours, after {AIRBENCH}, with {STRONGER}",
        _fast(
            "compact300k",
            epochs=300,
            cutout=8,
            crop=4,
            lr=0.08,
            biases=26.5,
            classifier=47.0,
            augment="rand",
            average="mirror+3x3",
        ),
        (
            Reached("CIFAR-10", (0.9464,), 6270, "two cores", "2026-11-27"),
            Reached("CIFAR-10", (0.9490,), 426, "H200", "2026-11-27", "beside other trainings"),
            Reached("CIFAR-10", (0.9437,), 4081, "two cores", "2026-11-27", "200 epochs, judged by mirror+shift"),
            Reached("CIFAR-10", (0.9429,), 183, "H200", "2026-11-26", f"200 epochs, to 114 on an H100, {WITHOUT}"),
            Reached("CIFAR-10", (0.9356,), 3715, "two cores", "2026-11-26", f"60 epochs, without cutout, {WITHOUT}"),
        ),
    ),
}
"""By name."""


DEFAULT_LR = {"adamw": 0.003, "adam": 0.001, "sgd": 0.1, "muon": 0.02}
DEFAULT_WEIGHT_DECAY = {"adamw": 0.05, "sgd": 5e-4}
DEFAULT_EPOCHS = 10
NOT_MIRRORED = ("mnist", "digits")
"""Data whose classes change in a mirror."""


def completed(model: str, data: str, optimizer: str) -> Recipe:
    """A recipe of defaults, those that depend on the optimizer and the data among them; its budget is not set."""
    return Recipe(
        model=model,
        data=data,
        data_fingerprint="",
        optimizer=optimizer,
        lr=DEFAULT_LR.get(optimizer, DEFAULT_LR["adamw"]),
        weight_decay=DEFAULT_WEIGHT_DECAY.get(optimizer, 0.0),
        flip=data not in NOT_MIRRORED,
    )


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`, which it keeps as its name. An unknown one is a UserError with the nearest names."""
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES, where="`convatlas recipes` lists them.")
    return replace(RECIPES[name].recipe, name=name)
