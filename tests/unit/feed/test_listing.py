"""Lists of buckets: documents, what changed, what is kept."""

from __future__ import annotations

import pytest

from visp.feed.listing import Thing, differences, packed, read_page, unpacked

SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def test_a_page_is_read_with_its_namespace_or_without() -> None:
    for space in (f' xmlns="{SPACE}"', ""):
        page = read_page(
            f"<ListBucketResult{space}><IsTruncated>true</IsTruncated><NextContinuationToken>n</NextContinuationToken>"
            '<Contents><Key>a&amp;b</Key><ETag>"e"</ETag><Size>3</Size></Contents></ListBucketResult>'.encode()
        )
        assert (page.things, page.more) == ({"a&b": Thing(3, "e")}, "n")
    assert read_page(b"<ListBucketResult/>").more is None


@pytest.mark.parametrize(
    "document",
    [b"", b"<html/>", b'<!DOCTYPE a [<!ENTITY b "c">]><ListBucketResult>&b;</ListBucketResult>',
     b"<ListBucketResult><Contents><Size>x</Size></Contents></ListBucketResult>"],
)  # fmt: skip
def test_what_is_no_list_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        read_page(document)


def test_what_is_new_changed_and_gone() -> None:
    before = {key: Thing(1, "e").mark() for key in ("gone", "kept", "other")}
    now = {"kept": Thing(1, "e"), "other": Thing(2, "f"), "new": Thing(3, "g")}
    found = list(differences(before, now))
    assert [(one.op, one.key) for one in found] == [("created", "new"), ("changed", "other"), ("deleted", "gone")]
    after = unpacked(packed({key: thing.mark() for key, thing in now.items()}))
    assert list(differences(after, now)) == []
