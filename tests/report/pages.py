"""A page taken apart: its elements, attributes and text, by the parser of the standard library."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

VOID = {"meta", "img", "br", "link", "input", "hr", "circle", "rect", "line", "polyline", "path"}


class Page(HTMLParser):
    """Elements as (name, attributes); the text outside style; complains of unbalanced elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text on one line, thin spaces as they are."""
        return re.sub(r"[ \n]+", " ", "".join(self.texts))

    def names(self) -> set[str]:
        return {name for name, _ in self.elements}


def drawings(html: str) -> list[ElementTree.Element]:
    """Every SVG of a page, parsed as XML."""
    return [ElementTree.fromstring(each) for each in re.findall(r"<svg .*?</svg>", html, flags=re.S)]
