from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.feed.pattern import EXPRESSION_LENGTH, TEXT_LENGTH, Pattern

EXPRESSIONS = [
    *(
        "a",
        "ab",
        "a|b",
        "a*",
        "a+b",
        "(ab)+",
        "a?b",
        "^a",
        "a$",
        "^a$",
        "^(a|b)*c$",
        "[abc]",
        "[^abc]",
        "[a-c]+",
        "a{2}",
    ),
    *(
        "a{2,}",
        "^a{1,3}$",
        "a{0}b",
        r"\d+",
        r"\w\s",
        r"\D",
        r"\W",
        r"\S",
        r"[\d.]+",
        r"\.",
        "(?:a|b)c",
        "",
        "()",
        "a||b",
    ),
    *(
        "[]a]",
        "[a-]",
        r"[\w-]+@\w+",
        "^$",
        "(a*)*b",
        "(a|a)*b",
        ".*a.*b.*c",
        "x{1,2}y{1,2}",
        "(^a|b$)",
        r"\t|\n",
        "a{0,2}",
    ),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
@given(text=st.text(alphabet="abcxy019 .-@_\t\n", max_size=12))
def test_it_finds_what_python_finds(expression: str, text: str) -> None:
    flags = re.DOTALL | re.ASCII
    expected = re.search(expression.replace("$", r"\Z"), text, flags) is not None
    assert Pattern(expression).is_in(text) == expected


@pytest.mark.parametrize(
    "expression",
    [
        *(
            "(",
            ")",
            "[",
            "a**",
            "*a",
            "+",
            "a{",
            "a{x}",
            "a{3,2}",
            "a{999}",
            "[b-a]",
            r"\1",
            r"\b",
            "(?=a)",
            "(?P<n>a)",
            "\\",
        ),
        *("a" * (EXPRESSION_LENGTH + 1), "((a{50}){50}){50}", "(" * 30 + ")" * 30, r"[\D]", "a{2}{3}"),
    ],
)
def test_what_is_not_understood(expression: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Pattern(expression)


@pytest.mark.parametrize("expression", ["(a*)*b", "(a|a)*b", "(a+)+$x", "(.*)(.*)(.*)(.*)(.*)x", "(a?){20}b"])
def test_what_takes_others_for_ever(expression: str) -> None:
    assert not Pattern(expression).is_in("a" * TEXT_LENGTH * 100)
