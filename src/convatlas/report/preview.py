"""The page of an augmentation preview: one HTML file without script, its pictures inside."""

from collections.abc import Sequence

from convatlas.records.preview import Preview
from convatlas.report.html import templates
from convatlas.report.sections import png


def preview_page(preview: Preview, pictures: Sequence[Sequence[str]]) -> str:
    """The page; `pictures` are PNG data URLs, for each image its middle first, and then its copies."""
    return templates().get_template("preview.html.j2").render(preview=preview, pictures=pictures, png=png)
