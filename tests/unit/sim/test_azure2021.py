"""The trace of 2021: ends and durations become arrivals."""

from __future__ import annotations

import gzip

import pytest

from visp.sim.azure2021 import Azure2021
from visp.sim.workload import Cut, WorkloadError

HEAD = "app,func,end_timestamp,duration\n"
LINES = HEAD + "A,f,110.5,0.5\nB,f,103,3.0\nA,g,101,0.25\nA,f,130,10\n"


def test_arrivals_are_ends_less_durations_from_zero_in_order(tmp_path):
    (tmp_path / "trace.txt").write_text(LINES)
    workload = Azure2021(tmp_path / "trace.txt", seed=1)
    # B/f began at 100, A/g at 100.75, A/f at 110 and at 120
    assert list(workload.arrivals()) == [(0.0, 1, 3.0), (0.75, 2, 0.25), (10.0, 0, 0.5), (20.0, 0, 10.0)]
    names = [(workload.actions.namespace_of(action), workload.actions.name_of(action)) for action in range(3)]
    assert names == [("A", "f"), ("B", "f"), ("A", "g")]
    assert "4 invocations of 3 functions" in workload.source


def test_a_cut_takes_the_first_hours_or_invocations(tmp_path):
    (tmp_path / "trace.txt").write_text(LINES)
    workload = Azure2021(tmp_path / "trace.txt", seed=1)
    assert len(list(Cut(seconds=10.0).of(workload.arrivals()))) == 2
    assert len(list(Cut(invocations=3).of(workload.arrivals()))) == 3
    assert len(list(Cut().of(workload.arrivals()))) == 4


def test_gzip_is_read(tmp_path):
    (tmp_path / "trace.csv.gz").write_bytes(gzip.compress(LINES.encode()))
    assert len(list(Azure2021(tmp_path / "trace.csv.gz", seed=1).arrivals())) == 4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (HEAD, "no invocation in it"),
        ("app;func;end;duration\n", "line 1: the header must begin with app,func,end_timestamp,duration"),
        (HEAD + "A,f,1.0\n", "line 2: 4 columns expected, 3 found"),
        (HEAD + "A,f,1.0,0.1\nA,f,noon,0.1\n", "line 3: end_timestamp: no number: 'noon'"),
        (HEAD + "A,f,1.0,nan\n", "line 2: duration: 'nan' is not between"),
    ],
)
def test_damage_is_told_with_file_and_line(tmp_path, text, sentence):
    (tmp_path / "trace.txt").write_text(text)
    with pytest.raises(WorkloadError, match=f"trace.txt.*{sentence}"):
        Azure2021(tmp_path / "trace.txt", seed=1)


def test_more_than_can_be_sorted_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("visp.sim.azure2021.INVOCATIONS_LIMIT", 2)
    (tmp_path / "trace.txt").write_text(LINES)
    with pytest.raises(WorkloadError, match="line 4: more than 2 invocations"):
        Azure2021(tmp_path / "trace.txt", seed=1)
