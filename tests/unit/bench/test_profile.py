"""Samples become a table and a flame graph."""

import xml.etree.ElementTree as ET

from bench import flame, profile
from bench.profile import Line

SAMPLES = """\
main (a.py:1);serve (b.py:2);read (c.py:3) 60
main (a.py:1);serve (b.py:2) 30
main (a.py:1);serve (b.py:2);read (c.py:3) 10
_bootstrap (threading.py:1);_worker (concurrent/futures/thread.py:69) 500
nonsense
"""


def test_equal_stacks_are_added_up_and_waiting_threads_left_out() -> None:
    assert sorted(profile.stacks(SAMPLES).values()) == [30, 70]


def test_the_table_tells_own_and_total_shares() -> None:
    assert profile.heaviest(profile.stacks(SAMPLES)) == [
        Line(70.0, 70.0, "read (c.py:3)"),
        Line(30.0, 100.0, "serve (b.py:2)"),
    ]


def test_a_function_that_calls_itself_counts_once() -> None:
    assert profile.heaviest(profile.stacks("walk;walk;walk 5")) == [Line(100.0, 100.0, "walk")]


def test_boxes_are_as_wide_as_their_share() -> None:
    drawn = ET.fromstring(flame.render(profile.stacks(SAMPLES)))
    widths = {box[0].text: float(box[1].attrib["width"]) for box in drawn if box[0].text is not None and len(box) == 3}
    assert widths == {
        "main (a.py:1): 100.0%": flame.WIDTH,
        "serve (b.py:2): 100.0%": flame.WIDTH,
        "read (c.py:3): 70.0%": flame.WIDTH * 0.7,
    }


def test_names_are_escaped() -> None:
    drawn = flame.render(profile.stacks("<lambda> (a&b.py:1) 1"))
    assert "<lambda>" not in drawn
    ET.fromstring(drawn)


def test_nothing_sampled_is_an_empty_picture() -> None:
    ET.fromstring(flame.render({}))
