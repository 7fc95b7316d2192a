"""Options of `convatlas finetune`: which strategies are meant, and what would do nothing for any of them. No torch here."""

import typer

from convatlas.cli import options as o
from convatlas.errors import UserError, unknown_name
from convatlas.transfer.known import AUTO, STRATEGIES

OF_STRATEGY = {
    "stages": "last-stages", "layer_decay": "layer-decay", "l2_sp": "l2-sp", "probe_share": "lp-ft", "copies": "probe",
    "cache": "probe",
}  # fmt: skip
"""Options that do something in one strategy only."""
OF_TOURNAMENT = ("folds", "seeds", "halving")
"""Options that do something in a tournament only."""


def names_of(strategy: str, strategies: str | None) -> tuple[str, ...]:
    """Which strategies are meant; in a tournament random weights always take part, as the baseline. Raises UserError."""
    if strategy != AUTO and strategies is not None:
        raise UserError("--strategies is for the tournament", fix="Leave --strategy out, or --strategies.")
    asked = (strategy,) if strategy != AUTO else tuple(STRATEGIES) if strategies is None else tuple(strategies.split(","))
    names = tuple(dict.fromkeys(each.strip() for each in asked))
    for name in names:
        if name not in STRATEGIES:
            raise unknown_name("strategy", name, [AUTO, *STRATEGIES], where=f"Choose from {AUTO}, {', '.join(STRATEGIES)}.")
    return names if strategy != AUTO or "scratch" in names else (*names, "scratch")


def policy_of(name: str, augment: str | None) -> str:
    """How a strategy augments: as asked for, or by its own default."""
    return augment or ("none" if name == "probe" else "light")


def check_used(context: typer.Context, names: tuple[str, ...]) -> None:
    """Refuse an option on the command line that would do nothing for any of the strategies `names`."""
    given = {name for name in context.params if o.on_the_command_line(context, name)}
    typed = {name: f"--{'' if context.params[name] is not False else 'no-'}{name.replace('_', '-')}" for name in given}
    for option, strategy in OF_STRATEGY.items():
        if option in given and strategy not in names:
            what = f"{typed[option]} is for {strategy} alone"
            raise UserError(what, fix=f"Leave it out, or give --strategy {strategy}.")
    tournament = context.params["strategy"] == AUTO
    for option in OF_TOURNAMENT:
        if option in given and not tournament:
            raise UserError(f"{typed[option]} is for the tournament", fix=f"Leave --strategy out, or {typed[option]}.")
    if "validation" in given and tournament:
        what = "--validation is for one strategy: a tournament parts all images but the test images into folds"
        raise UserError(what, fix="Leave it out, or name the --strategy.")
    if "weights" in given and not any(STRATEGIES[name].pretrained for name in names):
        what = "--weights does nothing for scratch, which begins with random ones"
        raise UserError(what, fix="Leave it out, or name another --strategy.")
    _check_images(context, given, names)


def _check_images(context: typer.Context, given: set[str], names: tuple[str, ...]) -> None:
    """Refuse an option that would do nothing because of another one that says what becomes of the images."""
    asked = context.params
    mixing = "--mixup" if asked["mixup"] else "--cutmix" if asked["cutmix"] else None
    if "cache" in given and asked["cache"] and mixing:
        raise UserError("cached features cannot be mixed as images are", fix=f"Leave --cache out, or {mixing}.")
    uncached = mixing if asked["cache"] else "--no-cache"
    if "copies" in given and uncached:
        raise UserError(f"--copies is of cached features, and with {uncached} there are none", fix="Leave one of them out.")
    if "flip" in given and asked["flip"] and {policy_of(name, asked["augment"]) for name in names} == {"none"}:
        raise UserError("--flip is for augmented images, and these are not", fix="Leave it out, or give --augment light.")
