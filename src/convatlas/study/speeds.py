"""Latency, throughput, memory and energy of a study's variants, measured in turn on this machine."""

from collections.abc import Callable
from datetime import UTC, datetime

from convatlas.records.findings import Speeds
from convatlas.records.plan import StudyPlan
from convatlas.study.measuring import measure
from convatlas.training.environment import environment


def measured_speeds(plan: StudyPlan, *, rounds: int, threads: int, progress: Callable[[str, int, int], None]) -> Speeds:
    """All variants as their recipes have them, in batches of the first one's size. Raises UserError."""
    speeds = measure(
        {variant.name: variant.recipe for variant in plan.variants},
        num_classes=len(plan.classes),
        in_chans=plan.in_chans,
        image_sizes={variant.name: variant.image_size for variant in plan.variants},
        batch_size=plan.variants[0].recipe.batch_size,
        rounds=rounds,
        threads=threads,
        progress=progress,
    )
    return Speeds(datetime.now(UTC).isoformat(timespec="seconds"), environment(), speeds)
