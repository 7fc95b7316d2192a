"""A drawing as a page of its own: the wide and the narrow form in one file, of which a screen shows the one that fits."""

from convatlas.report.charts import svg
from convatlas.report.charts.svg import Markup

STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; background: #fff; }
svg { margin: 0 auto; }
.narrow { display: none; }
@media (prefers-color-scheme: dark) { body { background: #1b1f26; } }
@media screen and (max-width: 700px) { .wide { display: none; } .narrow { display: block; } }
"""


def page(title: str, *, wide: Markup, narrow: Markup) -> str:
    """One HTML file that needs nothing but itself, and no script. `wide` and `narrow` are the same drawing in two widths."""
    head = svg.tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        svg.title(title),
        svg.tag("style", Markup(STYLE)),
    )
    body = svg.tag("body", svg.tag("div", wide, class_="wide"), svg.tag("div", narrow, class_="narrow"))
    return f"<!doctype html>\n{svg.tag('html', head, body, lang='en')}\n"
