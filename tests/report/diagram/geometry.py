"""What no drawing may do: texts that meet or are cut, wires through texts or boxes, anything outside of the sheet."""

import itertools

from convatlas.report.charts.labels import Box
from convatlas.report.diagram.pieces import Picture, Shape, Wire

STEPS = 24  # into which an arc is cut


def faults(picture: Picture) -> list[str]:
    """Everything that is wrong with a drawing, in words."""
    sheet = Box(0, 0, picture.width, picture.height)
    found = [f"outside: {text.content!r} {text.box}" for text in picture.texts if not text.box.within(sheet)]
    found += [f"out of its box: {text.content!r}" for text in picture.texts if text.within and not text.box.within(text.within)]
    found += [f"outside: {shape.look} {shape.box}" for shape in picture.shapes if not shape.box.within(sheet)]
    for one, other in itertools.combinations(picture.texts, 2):
        if one.box.meets(other.box):
            found.append(f"texts meet: {one.content!r} and {other.content!r}")
    for text in picture.texts:
        for shape in picture.shapes:
            if text.box.meets(shape.box) and not text.box.within(shape.box):
                found.append(f"text on an edge: {text.content!r} and {shape.look} {shape.told}")
    boxes = list({hull(shape) for shape in picture.shapes if shape.solid})
    for one, other in itertools.combinations(boxes, 2):
        if one.meets(other):
            found.append(f"boxes meet: {one} and {other}")
    for wire in picture.wires:
        found += wire_faults(wire, picture, boxes, sheet)
    return found


def hull(shape: Shape) -> Box:
    """What wires keep out of: the shape's box, or of a circle the square in it (they may end on its edge anywhere)."""
    box = shape.box
    if shape.corner * 2 < box.right - box.left or shape.corner * 2 < box.bottom - box.top:
        return box
    inset = shape.corner * (1 - 0.5**0.5)
    return Box(box.left + inset, box.top + inset, box.right - inset, box.bottom - inset)


def wire_faults(wire: Wire, picture: Picture, boxes: list[Box], sheet: Box) -> list[str]:
    found = []
    for segment in segments(wire):
        if not segment.within(sheet):
            found.append(f"wire outside: {segment}")
        found += [f"wire {wire.points} through {box}" for box in boxes if crosses(segment, box)]
        found += [f"wire through text {text.content!r}" for text in picture.texts if crosses(segment, text.box)]
    return found


def segments(wire: Wire) -> list[Box]:
    """The wire in pieces, each as the box around it: exact for level and upright ones, near enough for short slanting ones."""
    points = curve(wire.points) if wire.bend else list(wire.points)
    return [
        Box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)) for (x0, y0), (x1, y1) in itertools.pairwise(points)
    ]  # fmt: skip


def curve(points):
    (x0, y0), (xm, ym), (x1, y1) = points
    shares = [i / STEPS for i in range(STEPS + 1)]
    return [
        ((1 - t) ** 2 * x0 + 2 * t * (1 - t) * xm + t * t * x1, (1 - t) ** 2 * y0 + 2 * t * (1 - t) * ym + t * t * y1)
        for t in shares
    ]


def crosses(segment: Box, box: Box) -> bool:
    """Whether a piece of wire goes into a box; its edge it may touch."""
    slack = 0.6
    inner = Box(box.left + slack, box.top + slack, box.right - slack, box.bottom - slack)
    return (
        segment.left < inner.right and inner.left < segment.right + 1e-9
        and segment.top < inner.bottom and inner.top < segment.bottom + 1e-9
    )  # fmt: skip
