"""Names from outside as text that is safe to show: no control characters, no bidi marks, nothing that XML cannot hold."""

import unicodedata

_JOINERS = "\u200c\u200d"  # scripts and emoji need these two; every other format character only hides or reorders text
_SPACES = {"Cc": " ", "Zl": " ", "Zp": " "}


def plain(text: str) -> str:
    """`text` without format and control characters (bidi overrides, escapes, zero widths), on one line.

    Lone surrogates (undecodable bytes of a file name) and noncharacters become U+FFFD.
    """
    if text.isascii() and text.isprintable():  # nearly all, told at once
        return text
    kept = "".join(_plain_character(each) for each in text)
    return " ".join(kept.split()) if kept != text else text


def _plain_character(character: str) -> str:
    category = unicodedata.category(character)
    if category in _SPACES:
        return _SPACES[category]
    if category == "Cf" and character not in _JOINERS:
        return ""
    if category == "Cs" or ord(character) & 0xFFFE == 0xFFFE:
        return "\ufffd"
    return character
