"""Names are hostile input: none becomes an element or an attribute, none hides or reorders what stands around it."""

import re
import unicodedata
from dataclasses import replace
from functools import cache

import pytest

from convatlas.report.charts import svg
from convatlas.report.html import comparison_page
from convatlas.report.plain import plain
from convatlas.report.sections import png

from .pages import Page, drawings
from .samples import PICTURE, comparison, evaluation, row, run, study

PAYLOADS = (
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)", '" autofocus onfocus="alert(1)', "</style><script>alert(1)</script>", "</title><script>1</script>",
    "</svg><script>alert(1)</script>", "</text><script>alert(1)</script>", "<![CDATA[<script>alert(1)</script>]]>",
    "<!-- --><script>alert(1)</script>", "javascript:alert(1)", "{{ 7 * 7 }}", "{% raw %}", "${alert(1)}",
    "&lt;b&gt;", "&#60;b&#62;",
    "<a href=javascript:alert(1)>x</a>", "<iframe srcdoc='<script>1</script>'>", "<foreignObject><b>x</b></foreignObject>",
    "<animate onbegin=alert(1)>", "<use href=data:x>", "<base href=//evil.example>", "<meta http-equiv=refresh content=0>",
    "<link rel=stylesheet href=//evil.example>", "`onload=alert(1)`", "\\\"><b>", "a\x00b<b>", "\ud800lone", "line\nbreak\r\t<b>",
    "\u202egnp.exe", "\u2066hidden\u2069", "\u200fright\u061c", "\x1b[31mred\x1b[0m", "zero\u200bwidth\ufeff", "\ufffe\uffff",
    "ＦＵＬＬ<b>ｗｉｄｔｈ", "]]>", "<?xml?>", "<!DOCTYPE x>", "x" * 3000, "%s%n{0}", "=cmd|' /C calc'!A0",
)  # fmt: skip


@cache
def _poisoned(name: str) -> str:
    """The page of a comparison in which every text is `name`."""
    own = run(4, classes=(name, name + "2", "c", "d"))
    other = run(5, classes=("a", "b", "c", name))
    test = evaluation(0.8, (name, name + "2", "c", "d"))
    worst = tuple(replace(each, picture=name) for each in test.worst)
    choices = replace(own.summary.choices, reason=name, device=name)
    environment = replace(own.summary.environment, processor=name, system=name, convatlas=name)
    summary = replace(own.summary, model=name, family=name, cause=name, skipped_images=(name,), choices=choices)
    own = replace(own, summary=replace(summary, environment=environment), test=replace(test, worst=worst))
    rows = (replace(row([own], title=name), runs=(name,)), replace(row([other], title=name + "x"), cause=name, accuracy=None))
    whole = comparison(rows, [own, other])
    whole = replace(
        whole, name=name, date=name, command=name, complete=False, budget=name, data=name, data_description=name,
        models=(name, other.summary.model, "<b>absent</b>"), environment=environment,
        recipe=replace(whole.recipe, optimizer=name),
    )  # fmt: skip
    return comparison_page(whole, [own, other], continue_with=name)


def _skeleton(html: str) -> set[tuple[str, tuple[str, ...]]]:
    return {(name, tuple(sorted(attributes))) for name, attributes in Page(html).elements}


@pytest.fixture(scope="module")
def harmless() -> set[tuple[str, tuple[str, ...]]]:
    return _skeleton(_poisoned("harmless"))


@pytest.mark.untraced  # many pages, whose lines other tests reach
@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_payload_adds_no_element_and_no_attribute(payload: str, harmless: set[tuple[str, tuple[str, ...]]]) -> None:
    html = _poisoned(payload)
    html.encode("utf-8")
    assert _skeleton(html) <= harmless
    assert len(drawings(html)) == len(drawings(_poisoned("harmless")))


@pytest.mark.untraced  # many pages, whose lines other tests reach
@pytest.mark.parametrize("payload", PAYLOADS[:30], ids=range(30))
def test_payload_is_shown_as_the_text_it_is(payload: str) -> None:
    shown = " ".join(plain(payload).split())
    assert shown in re.sub(r"\s+", " ", "".join(Page(_poisoned(payload)).texts))


@pytest.mark.untraced  # many pages, whose lines other tests reach
@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_no_character_hides_or_reorders(payload: str) -> None:
    kept = {each for each in _poisoned(payload) if unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    assert kept <= {"\n"}


def test_plain_keeps_honest_text() -> None:
    for text in ("ResNet-18", "Ünïcödé", "日本語", "שלום", "👩\u200d🔬", "a  b"):
        assert plain(text) == text


@pytest.mark.parametrize(
    "url",
    ["", "x", "javascript:alert(1)", "data:text/html;base64,PHNjcmlwdD4=", "data:image/svg+xml;base64,iVBORw0KGgo=",
     "https://evil.example/x.png", PICTURE + '" onerror="alert(1)', PICTURE + "\n", " " + PICTURE,
     "data:image/png;base64,AAAA", PICTURE.replace("image/png", "IMAGE/PNG")],
)  # fmt: skip
def test_only_png_data_is_a_picture(url: str) -> None:
    assert png(url) is None
    assert png(PICTURE) == PICTURE
    whole, runs = study([4])
    test = runs[0].test
    assert test is not None
    spoilt = replace(test, worst=tuple(replace(each, picture=url) for each in test.worst))
    html = comparison_page(whole, [replace(runs[0], test=spoilt)])
    assert "<img" not in html and html.count("no picture") == 4


def test_svg_parts_escape_text_and_attributes() -> None:
    element = svg.tag("g", svg.text('<b>"&', x=1, y=2, class_='x" onload="y'), "<i>", class_="k")
    assert str(element) == ('<g class="k"><text x="1" y="2" class="x&#34; onload=&#34;y">&lt;b&gt;&#34;&amp;</text>&lt;i&gt;</g>')
