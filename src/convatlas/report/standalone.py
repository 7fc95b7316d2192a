"""A chart as an SVG file of its own, with its colours for light and dark."""

import importlib.resources

from markupsafe import Markup


def standalone(chart: Markup) -> str:
    """The file's text: the chart with the pages' style sheet inside, on a card of its own."""
    style = importlib.resources.files("convatlas.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    colours = style[: style.index("* { box-sizing")] + style[style.index(".c0 {") : style.index(".narrow { display")]
    sheet = f"<style>{colours}svg {{ background: var(--card); font-family: system-ui, sans-serif; }}</style>"
    start = chart.index(">") + 1
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{chart[:start]}{sheet}{chart[start:]}\n'
