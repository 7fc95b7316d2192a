"""Numbers as people read them: percentages, counts, durations. Anything missing or not finite is a dash."""

import math
import re

DASH = "–"
_THIN = "\u202f"
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def finite(value: float | None) -> float | None:
    """`value`, or None where it is missing, NaN or infinite."""
    return value if value is not None and math.isfinite(value) else None


def percent(share: float | None, *, digits: int = 1, sign: bool = True) -> str:
    """A share in [0, 1] as a percentage: 0.8734 is "87.3 %"."""
    known = finite(share)
    if known is None:
        return DASH
    return f"{100 * known:.{digits}f}" + (f"{_THIN}%" if sign else "")


def points(share: float | None, *, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its sign: 0.0123 is "+1.2". What rounds to nothing has no sign."""
    known = finite(share)
    if known is None:
        return DASH
    shown = f"{100 * known:+.{digits}f}".replace("-", "−")
    return shown[1:] if not float(shown[1:]) else shown


def date(text: str) -> str:
    """An ISO date with its time as it is read: "2026-01-05 10:11 UTC"; any other text as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(?::\d\d(?:\.\d+)?)?(?:\+00:00|Z)", text)
    return f"{found[1]} {found[2]} UTC" if found else text


def count(number: int) -> str:
    """A whole number with thin spaces between the thousands."""
    return f"{number:,}".replace(",", _THIN)


def short(number: float | None) -> str:
    """A number with three significant digits and k, M, G or T: 272474 is "272 k"."""
    known = finite(number)
    if known is None:
        return DASH
    for size, unit in _UNITS:
        if abs(known) >= 0.9995 * size:
            return f"{significant(known / size)}{_THIN}{unit}"
    return significant(known)


def significant(number: float, *, digits: int = 3) -> str:
    """A number with `digits` significant digits, never in powers of ten, and without an idle decimal point."""
    if number == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(number))))
    text = f"{number:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float | None) -> str:
    """A time as a person says it: "4.2 s", "3 min 20 s", "2 h 5 min"."""
    known = finite(seconds)
    if known is None:
        return DASH
    if known < 59.95:
        return f"{known:.1f}{_THIN}s"
    whole = round(known)
    if whole < 3600:
        return f"{whole // 60}{_THIN}min {whole % 60}{_THIN}s"
    return f"{whole // 3600}{_THIN}h {whole % 3600 // 60}{_THIN}min"


def power(value: float) -> str:
    """A power of ten, as it is written: 0.001 is "10⁻³"."""
    return "10" + str(round(math.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def scientific(value: float | None) -> str:
    """Two significant digits, with a power of ten where a person would take one: "0.29", "6.4 × 10²", "3.4 × 10⁻¹²"."""
    known = finite(value)
    if known is None:
        return DASH
    if known == 0 or 0.01 <= abs(known) < 1000:
        return significant(known, digits=2)
    digits, _, exponent = f"{known:.1e}".partition("e")
    return f"{digits}{_THIN}×{_THIN}{power(10.0 ** int(exponent))}"


def tick(value: float) -> str:
    """An axis value, as short as it goes: 0.25, 20, 1.5 k."""
    return short(value) if abs(value) >= 1000 else significant(value)
