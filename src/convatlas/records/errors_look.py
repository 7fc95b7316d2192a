"""What a look at a classifier's errors found: how good, how sure, which answers are wrong, which labels odd."""

from dataclasses import dataclass

from convatlas.records.study import Interval


@dataclass(frozen=True)
class ClassScore:
    """One class. Of `n` images of it `found` were called so; `answers` images of any class were called so.

    `recall` is found / n, None without an image; `precision` is found / answers, None without an answer. `f1` in [0, 1] is
    2 found / (n + answers), None without an image.
    """

    name: str
    n: int
    answers: int
    found: int
    precision: Interval | None
    recall: Interval | None
    f1: float | None


@dataclass(frozen=True)
class JudgedImage:
    """One image of the split and what the network says of it. Probabilities are those after temperature scaling.

    `probability` is that of the class `predicted`, `margin` how far the `runner_up`'s is below it. `picture` is what the network
    saw, `map` what spoke for `predicted` laid over it, both as PNG data URLs; `map` is None where there is none.
    """

    index: int
    image: str
    truth: str
    predicted: str
    probability: float
    runner_up: str
    margin: float
    picture: str
    map: str | None


@dataclass(frozen=True)
class Bin:
    """The `n` answers with a probability above `low`, at most `high`: its mean, and the share of right ones, both in [0, 1]."""

    low: float
    high: float
    n: int
    probability: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """How well probabilities fit what came out, with logits divided by `temperature`.

    `nll` in nats an image; `brier` from 0 to 2, the squared errors added up over the classes; `error` is the expected calibration
    error in [0, 1], `by_chance` what it would be on average, on as many images, if the probabilities were perfect. `bins` are
    those that have answers, from the lowest probability to the highest.
    """

    temperature: float
    nll: float
    brier: float
    error: float
    by_chance: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Suspect:
    """An image whose label may be wrong: the network gives it `probability` for its `given` label, `margin` more for `suggested`.

    `picture` is a PNG data URL, None for all but the first few.
    """

    index: int
    image: str
    given: str
    suggested: str
    probability: float
    margin: float
    picture: str | None


@dataclass(frozen=True)
class ErrorReport:
    """A network's answers on the `n` images of one split, of which it saw the middle `size` x `size` pixels.

    `confusion[i][j]` counts images of class i that were called class j. `worst` are wrong answers, surest first; `unsure` are
    those with the smallest margin, right or wrong. `before` and `after` are without and with `temperature`, which was fitted on
    the split `fitted_on`. `suspects` begin with the largest margin. `layer` is where the maps were made, None if there are none;
    `notes` say what was left out, and why.
    """

    split: str
    n: int
    size: int
    classes: tuple[str, ...]
    accuracy: Interval
    confusion: tuple[tuple[int, ...], ...]
    scores: tuple[ClassScore, ...]
    worst: tuple[JudgedImage, ...]
    unsure: tuple[JudgedImage, ...]
    temperature: float
    fitted_on: str
    before: Calibration
    after: Calibration
    suspects: tuple[Suspect, ...]
    layer: str | None
    notes: tuple[str, ...]
