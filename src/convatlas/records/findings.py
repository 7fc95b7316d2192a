"""What a study found: `findings.json` in its folder, from which, with the run folders, every page and table is made."""

from dataclasses import dataclass

from convatlas.records.plan import StudyPlan
from convatlas.records.run import Environment
from convatlas.records.study import Interval


@dataclass(frozen=True)
class Answers:
    """`answers.json` of a run: what it answered for each test image, in order, and with what confidence in [0, 1]: its
    probability for that answer, at the network's temperature."""

    split: str
    labels: tuple[int, ...]
    predicted: tuple[int, ...]
    confidence: tuple[float, ...]


@dataclass(frozen=True)
class Effect:
    """A planned comparison: accuracy of `first` minus that of `second`, as shares in [0, 1].

    `difference` says how its interval was made and over how many seeds or images. `p` is two-sided, `p_adjusted` after Holm over
    all planned comparisons; `effect_size` is Cohen's d of the paired differences (None for one seed, or no spread).
    `equivalence_p` is that of two one-sided tests, after Holm too (None: not asked, or not to be had). `verdict` is "better",
    "worse", "equivalent" or "undecided"; `sentence` says it in words. All are None or "undecided" where runs are missing.
    `equivalence_interval` is the 90 % interval: two variants are equivalent where it lies within the margin (before Holm).
    """

    first: str
    second: str
    seeds: tuple[int, ...]
    difference: Interval | None
    p: float | None
    p_adjusted: float | None
    effect_size: float | None
    equivalence_p: float | None
    verdict: str
    sentence: str
    equivalence_interval: Interval | None = None


@dataclass(frozen=True)
class Speed:
    """How fast and how hungry a variant's network is on this machine, measured in turn with the others.

    `latency` is of one image, in seconds: medians of the rounds with their interval; `latency_p95` the same of the 95th
    percentiles. `throughput` and `train_throughput` are images a second in batches of `batch_size`, forward alone and whole
    steps. Peaks are bytes of a process that does only that, above what it held before; `joules` for one training image, where the
    machine tells.
    """

    batch_size: int
    rounds: int
    latency: Interval
    latency_p95: Interval
    throughput: Interval
    train_throughput: Interval
    inference_peak_bytes: int | None
    train_peak_bytes: int | None
    joules: float | None


@dataclass(frozen=True)
class Speeds:
    """`speeds.json`: what was measured of each variant, when (UTC) and on which machine."""

    date: str
    environment: Environment
    speeds: dict[str, Speed]


@dataclass(frozen=True)
class Failure:
    """A run without a result: how often it was tried, and what went wrong last."""

    run: str
    attempts: int
    cause: str


@dataclass(frozen=True)
class Tried:
    """One trial of a search: its run folder, relative to the study's, and the settings that it tried.

    `outcome` is "finished", "pruned" (stopped early, by rule) or "failed", for which `cause` says why. `val_accuracy` is that of
    the last of its `epochs`; None where there is none.
    """

    run: str
    settings: dict[str, str]
    outcome: str
    epochs: int
    val_accuracy: float | None
    cause: str | None = None


@dataclass(frozen=True)
class Tuned:
    """What a variant's search came to: the settings chosen, as written in the plan, and the validation accuracy they had.

    `tried` has its trials, in order.
    """

    variant: str
    trials: int
    settings: dict[str, str]
    val_accuracy: float
    tried: tuple[Tried, ...] = ()


@dataclass(frozen=True)
class VariantFindings:
    """One variant over its finished seeds. Accuracies are shares in [0, 1] on the test split, `validation` on the other.

    `calibration_error` is the expected calibration error (15 bins of equal width). `per_class` follows the classes of the plan:
    the accuracy among the images of each. `runs` are the finished run folders, relative to the study's, seed by seed.
    `optimism` is the accuracy of the best epoch by the test minus that of the last epoch (None where it was not watched).
    """

    name: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    top1: Interval | None
    top1_of_seeds: tuple[float, ...]
    top5: Interval | None
    validation: Interval | None
    calibration_error: Interval | None
    per_class: tuple[Interval, ...]
    train_seconds: float | None
    train_images_per_second: float | None
    optimism: Interval | None
    test_looks: int
    speed: Speed | None
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Findings:
    """A whole study's outcome. `complete` is False while runs are missing; `missing` names them.

    `optimism` is over all runs of all variants. `command` goes on with the study.
    """

    format: int
    plan: StudyPlan
    complete: bool
    missing: tuple[str, ...]
    variants: tuple[VariantFindings, ...]
    effects: tuple[Effect, ...]
    tuned: tuple[Tuned, ...]
    optimism: Interval | None
    test_looks: int
    date: str
    command: str
    environment: Environment
