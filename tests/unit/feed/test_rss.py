from __future__ import annotations

from typing import Any

import pytest

from visp.feed.base import FeedRefused, SourceLost
from visp.feed.rss import Rss, entries_of

RSS = b"""<?xml version="1.0"?><rss version="2.0" xmlns:dc="http://purl.org/dc/elements/1.1/"><channel><title>C</title>
<item><guid>1</guid><title>A &amp; B</title><link>http://a/1</link><pubDate>Mon, 06 Sep 2021 00:01:00 +0000</pubDate>
<description><![CDATA[<p>x</p>]]></description></item>
<item><link>http://a/2</link><pubDate>someday</pubDate></item><item><title>three</title></item><item/></channel></rss>"""
ATOM = b"""<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>urn:1</id><title>T</title><link rel="self" href="s"/>
<link href="http://a/1"/><updated>2021-09-06T00:01:00Z</updated>
<content type="xhtml"><b>bold</b> text</content></entry></feed>"""
RDF = b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/"
xmlns:dc="http://purl.org/dc/elements/1.1/"><channel/><item><title>T</title><link>http://a</link><dc:date>2021-09-06</dc:date>
</item></rdf:RDF>"""


def test_forms_of_feeds() -> None:
    first, second, third = entries_of(RSS)
    assert first == {
        **{"id": "1", "title": "A & B", "link": "http://a/1", "published": "2021-09-06T00:01:00+00:00"},
        "summary": "<p>x</p>",
    }
    assert (second["id"], second["published"], third["id"]) == ("http://a/2", "someday", "three")
    assert entries_of(ATOM) == [
        {"id": "urn:1", "title": "T", "link": "http://a/1", "published": "2021-09-06T00:01:00Z", "summary": "bold text"}
    ]
    assert entries_of(RDF)[0] == {
        "id": "http://a",
        "title": "T",
        "link": "http://a",
        "published": "2021-09-06",
        "summary": "",
    }


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html/>", b"<rss>", b"not xml", b"\xff\xfe\x00", b'<?xml version="1.0" encoding="nonsense"?><rss/>'),
        b'<!DOCTYPE rss [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><rss><channel><item>&b;</item></channel></rss>',
        b'<!DOCTYPE rss [<!ENTITY x SYSTEM "file:///etc/passwd">]><rss><channel><item>&x;</item></channel></rss>',
    ],
)
def test_what_is_no_feed_or_means_harm(body: bytes) -> None:
    with pytest.raises(SourceLost):
        entries_of(body)


def test_a_feed_that_is_nested_deep() -> None:
    assert entries_of(b"<rss>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</rss>") == []


@pytest.mark.parametrize(
    "given", [{}, {"url": "ftp://a"}, {"url": "file:///etc"}, {"url": "http://a", "interval_s": 1}]
)
def test_what_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(FeedRefused):
        Rss().parse(given, 0)
