"""SVG elements as `Markup`: whatever text is put in is escaped, whatever is markup stays."""

from collections.abc import Iterable

from markupsafe import Markup, escape

from convatlas.report.plain import plain

Part = str | Markup


def number(value: float) -> str:
    """A coordinate in pixels, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")


def tag(name: str, *parts: Part, **attributes: Part | float | None) -> Markup:
    """The element `name` around `parts`. `class_` is class, `stroke_width` stroke-width; an attribute of None is left out."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if not parts:
        return Markup(f"<{name}{pairs}/>")
    return Markup(f"<{name}{pairs}>{join(parts)}</{name}>")


def text(content: str, *, x: float, y: float, class_: str, anchor: str = "start", turn: float | None = None) -> Markup:
    """`content` with its baseline at (x, y); `turn` is an angle in degrees about that point."""
    spun = None if turn is None else f"rotate({number(turn)} {number(x)} {number(y)})"
    align = None if anchor == "start" else anchor
    return tag("text", plain(content), x=x, y=y, class_=class_, text_anchor=align, transform=spun)


def title(content: str) -> Markup:
    """The text that a browser shows when the pointer rests on the element around it."""
    return tag("title", plain(content))


def path(points: Iterable[tuple[float, float]], *, class_: str) -> Markup:
    """An open line through `points`."""
    steps = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    return tag("polyline", points=steps, class_=class_)


def line(start: tuple[float, float], end: tuple[float, float], *, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def join(parts: Iterable[Part]) -> Markup:
    """`parts` one after the other; a part that is no markup is escaped."""
    return Markup("").join(part if isinstance(part, Markup) else plain(part) for part in parts)


def drawing(parts: Iterable[Part], *, width: float, height: float, name: str, class_: str = "") -> Markup:
    """The whole drawing, `width` by `height` pixels; `name` says what it shows to those who cannot see it."""
    return tag(
        "svg",
        title(name),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=width,
        height=height,
        role="img",
        aria_label=plain(name),
        class_=f"chart {class_}".strip(),
    )


def _value(value: Part | float | None) -> Part:
    if isinstance(value, Markup):
        return value
    return plain(value) if isinstance(value, str) else number(float(value or 0))


__all__ = ["Markup", "Part", "drawing", "escape", "join", "line", "number", "path", "tag", "text", "title"]
