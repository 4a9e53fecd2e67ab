"""The trace of 2019: counts become arrivals, what is missing is drawn, what is damaged is named."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import pytest

from visp.sim.azure2019 import MINUTES, Azure2019
from visp.sim.published import MEMORY_RANGE_MB
from visp.sim.workload import WorkloadError

HEAD = "HashOwner,HashApp,HashFunction,Trigger," + ",".join(map(str, range(1, MINUTES + 1)))
DURATIONS_HEAD = (
    "HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum,percentile_Average_0,percentile_Average_1,"
    "percentile_Average_25,percentile_Average_50,percentile_Average_75,percentile_Average_99,percentile_Average_100"
)
MEMORY_HEAD = (
    "HashOwner,HashApp,SampleCount,AverageAllocatedMb,AverageAllocatedMb_pct1,AverageAllocatedMb_pct5,"
    "AverageAllocatedMb_pct25,AverageAllocatedMb_pct50,AverageAllocatedMb_pct75,AverageAllocatedMb_pct95,"
    "AverageAllocatedMb_pct99,AverageAllocatedMb_pct100"
)


def row(names: str, trigger: str, counts: dict[int, int]) -> str:
    return f"{names},{trigger}," + ",".join(str(counts.get(minute, 0)) for minute in range(MINUTES))


def write(folder: Path, day: str, *rows: str) -> None:
    text = "\n".join([HEAD, *rows]) + "\n"
    (folder / f"invocations_per_function_md.anon.{day}.csv").write_text(text)


def test_counts_become_arrivals_of_their_minute(tmp_path):
    write(tmp_path, "d01", row("o1,a1,f1", "http", {0: 3, 5: 2}), row("o2,a2,f2", "queue", {5: 1}))
    write(tmp_path, "d02", row("o1,a1,f1", "http", {0: 1}))
    workload = Azure2019(tmp_path, seed=1)
    arrivals = list(workload.arrivals())
    assert [at_s for at_s, _, _ in arrivals] == sorted(at_s for at_s, _, _ in arrivals)
    assert sorted((int(at_s // 60), action) for at_s, action, _ in arrivals) == [
        *[(0, 0)] * 3,
        *[(5, 0)] * 2,
        (5, 1),
        (MINUTES, 0),
    ]
    assert [workload.actions.name_of(action) for action in (0, 1)] == ["a1/f1", "a2/f2"]
    assert [workload.actions.namespace_of(action) for action in (0, 1)] == ["o1", "o2"]


def test_the_same_seed_gives_the_same_arrivals(tmp_path):
    write(tmp_path, "d01", row("o1,a1,f1", "http", dict.fromkeys(range(100), 2)))
    one, same, other = (Azure2019(tmp_path, seed=seed) for seed in (1, 1, 2))
    assert list(one.arrivals()) == list(one.arrivals()) == list(same.arrivals()) != list(other.arrivals())


def test_a_timer_keeps_its_second(tmp_path):
    write(tmp_path, "d01", row("o1,a1,f1", "timer", dict.fromkeys(range(10), 1)))
    times = [at_s for at_s, _, _ in Azure2019(tmp_path, seed=1).arrivals()]
    assert [after - before for before, after in pairwise(times)] == pytest.approx([60.0] * 9)


def test_a_crowded_minute_is_made_in_portions(tmp_path, monkeypatch):
    monkeypatch.setattr("visp.sim.azure2019.PORTION", 10)
    write(tmp_path, "d01", row("o1,a1,f1", "http", {0: 95}), row("o1,a1,f2", "timer", {0: 7}))
    arrivals = list(Azure2019(tmp_path, seed=1).arrivals())
    assert [sum(action == which for _, action, _ in arrivals) for which in (0, 1)] == [95, 7]
    assert [at_s for at_s, _, _ in arrivals] == sorted(at_s for at_s, _, _ in arrivals)
    assert arrivals[-1][0] < 60


def test_durations_lie_between_the_quantiles_and_memory_is_shared_out(tmp_path):
    write(tmp_path, "d01", row("o1,a1,f1", "http", {0: 500}), row("o1,a1,f2", "http", {0: 1}))
    (tmp_path / "function_durations_percentiles.anon.d01.csv").write_text(
        f"{DURATIONS_HEAD}\no1,a1,f1,200,500,90,600,100,110,150,200,300,500,600\n"
    )
    (tmp_path / "app_memory_percentiles.anon.d01.csv").write_text(
        f"{MEMORY_HEAD}\no1,a1,10,180,100,100,120,150,200,250,280,300\n"
    )
    workload = Azure2019(tmp_path, seed=1)
    runs_s = sorted(run_s for _, action, run_s in workload.arrivals() if action == 0)
    assert 0.1 <= runs_s[0] <= runs_s[-1] <= 0.6
    assert runs_s[250] == pytest.approx(0.2, rel=0.1)
    assert list(workload.actions.memory_mb) == [160, 160]  # 300 MB for two functions, in steps of 16


def test_what_is_missing_is_drawn_for_the_name_not_for_its_place(tmp_path):
    for name, rows in (("one", ["o1,a1,f1", "o2,a2,f2"]), ("other", ["o2,a2,f2"])):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "d01", *(row(names, "http", {0: 1}) for names in rows))
    both, alone = (Azure2019(tmp_path / name, seed=1).actions for name in ("one", "other"))
    assert both.memory_mb[1] == alone.memory_mb[0]
    assert both.cold_s[1] == alone.cold_s[0]
    assert MEMORY_RANGE_MB[0] <= alone.memory_mb[0] <= MEMORY_RANGE_MB[1]


def test_a_share_takes_whole_applications(tmp_path):
    names = [f"o{app % 7},a{app},f{function}" for app in range(200) for function in range(2)]
    write(tmp_path, "d01", *(row(name, "http", {0: 1}) for name in names))
    actions = Azure2019(tmp_path, seed=1, share=0.25).actions
    applications = [actions.name_of(action).split("/")[0] for action in range(len(actions))]
    assert 30 < len(set(applications)) < 70
    assert all(applications.count(one) == 2 for one in set(applications))


def test_gzip_is_read(tmp_path):
    text = f"{HEAD}\n{row('o1,a1,f1', 'http', {1: 1})}\n"
    (tmp_path / "invocations_per_function_md.anon.d03.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert len(list(Azure2019(tmp_path, seed=1).arrivals())) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("a,b\n", "line 1: the header must begin with HashOwner"),
        (f"{HEAD}\no1,a1\n", "line 2: 1444 columns expected, 2 found|line 2: 4 columns expected, 2 found"),
        (f"{HEAD}\n" + row("o1,a1,f1", "http", {}).replace(",0,", ",x,", 1), "line 2: minute 1: no number: 'x'"),
        (f"{HEAD}\n" + row("o1,a1,f1", "http", {}).replace(",0,", ",-1,", 1), "line 2: minute 1: '-1' is not between"),
        (f"{HEAD}\n" + row("o1,a1,f1", "http", {}).replace(",0,", ",1.5,", 1), "line 2: minute 1: no count: 1.5"),
        (f"{HEAD}\no1,a1,f1,http,0,0\n", "line 2: 1444 columns expected, 6 found"),
    ],
)
def test_damage_is_told_with_file_and_line(tmp_path, text, sentence):
    (tmp_path / "invocations_per_function_md.anon.d01.csv").write_text(text)
    with pytest.raises(WorkloadError, match=rf"invocations_per_function_md.anon.d01.csv.*({sentence})"):
        list(Azure2019(tmp_path, seed=1).arrivals())


def test_a_file_that_is_cut_off_is_told(tmp_path):
    packed = gzip.compress(f"{HEAD}\n{row('o1,a1,f1', 'http', {1: 1})}\n".encode())
    (tmp_path / "invocations_per_function_md.anon.d01.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(WorkloadError, match=r"d01.csv.gz, line \d+: cannot be read"):
        Azure2019(tmp_path, seed=1)


def test_a_folder_without_a_trace_is_told(tmp_path):
    with pytest.raises(WorkloadError, match="no file invocations_per_function_md"):
        Azure2019(tmp_path, seed=1)
    with pytest.raises(WorkloadError, match="No such file"):
        Azure2019(tmp_path / "none", seed=1)
