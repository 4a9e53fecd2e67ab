"""The page of the API's document: every operation, nothing from elsewhere, no text taken for markup."""

from __future__ import annotations

import base64
import copy
import hashlib
import re
from html.parser import HTMLParser

from visp.api import openapi, page

DOCUMENT = openapi.document()
HTML = page.render(DOCUMENT)
EMPTY = {"meta", "br"}


class Reader(HTMLParser):
    """What a page refers to, and whether what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.ids: list[str] = []
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        if tag not in EMPTY:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src"):
                self.links.add(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_page_shows_every_operation() -> None:
    ids = read(HTML).ids
    assert len(ids) == len(set(ids))
    for path, methods in DOCUMENT["paths"].items():
        assert f"<code>{path}</code>" in HTML
        assert {told["operationId"] for told in methods.values()} <= set(ids)


def test_page_needs_nothing_from_elsewhere() -> None:
    reader = read(HTML)
    assert not {"script", "link", "img", "iframe"} & reader.names
    inside = {link.removeprefix("#") for link in reader.links if link.startswith("#")}
    assert inside <= set(reader.ids)
    assert {link for link in reader.links if not link.startswith("#")} == {
        "../api-docs",
        "../api-docs?version=3.1",
    }


def test_policy_allows_the_style_of_the_page_and_nothing_else() -> None:
    style = re.search(r"<style>(.*?)</style>", HTML, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert page.POLICY.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")


def test_text_is_not_markup() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["info"]["title"] = "<script>1</script>"
    document["tags"][0]["description"] = "<img src=x> `a<b`"
    html = page.render(document)
    assert not {"script", "img"} & read(html).names
    assert "<code>a&lt;b</code>" in html
