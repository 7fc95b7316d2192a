"""What a network began with, as pages and the model card say it."""

from convatlas.models.published import published
from convatlas.records.naming import weights_name


def begun_with(model: str, weights: str | None) -> str:
    """The weights that a recipe for `model` names, so that others can find them: a source alone ("pypi") says little."""
    if not weights:
        return "random weights"
    row = next((row for row in published(model) if weights == row.name or (weights == row.source and row.default)), None)
    if row is None:
        return f"the weights {weights_name(weights)}"
    place = f" from the PyPI package {row.package}" if row.package is not None else ""
    return f"the published weights {row.name}{place}, trained on {' and then '.join(row.trained_on)}"
