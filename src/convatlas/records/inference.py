"""How a network is run when it is judged or asked: the ways tried, how fast and how exact they are, and the one taken."""

from dataclasses import dataclass

UNTRIED = "eager fp32"
"""The way that needs no trial: the network as it is."""


@dataclass(frozen=True)
class WayTrial:
    """One way to run a network. What was not measured is None.

    `seconds` is the median for one batch of the trial; `speed_up` that of eager fp32 over it, round by round, with its 95 %
    interval from `low` to `high`. `setup_seconds` were spent once. `error` is the largest difference of a logit from eager
    fp32's, as a share of the standard deviation of those; `agreement` the share of images with the same likeliest class, in
    [0, 1]. `note` says why the way was not taken, empty for one that lost on time alone.
    """

    name: str
    setup_seconds: float | None = None
    seconds: float | None = None
    speed_up: float | None = None
    low: float | None = None
    high: float | None = None
    error: float | None = None
    agreement: float | None = None
    note: str = ""


@dataclass(frozen=True)
class InferenceChoice:
    """The way that was taken, why, and all that were thought of. `batch_size` images are computed at once.

    Times are those of `timed` images, errors those of `checked` images (0: there was no trial). `images_ahead` is the work that
    the trial had to pay for; None: more than any trial costs. `threads` are torch's.
    """

    way: str
    reason: str
    batch_size: int
    images_ahead: int | None
    timed: int
    checked: int
    threads: int
    trials: tuple[WayTrial, ...]

    @property
    def chosen(self) -> WayTrial:
        """The trial of the way that was taken."""
        return next(trial for trial in self.trials if trial.name == self.way)

    @property
    def sentence(self) -> str:
        """What was computed how, and how far that is from fp32, in a line."""
        trial = self.chosen
        if trial.error is None or trial.agreement is None or self.way == UNTRIED:
            return f"computed by {self.way} ({self.reason})"
        gain = "" if trial.speed_up is None else f", {trial.speed_up:.1f} times as fast as eager fp32"
        return (
            f"computed by {self.way}{gain}: logits within {trial.error:.2g} of their spread of fp32's, "
            f"{trial.agreement:.1%} equal answers on {self.checked} images"
        )
