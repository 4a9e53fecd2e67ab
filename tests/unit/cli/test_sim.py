"""`visp sim`: what it reads, what it prints, how it refuses."""

import json

import pytest

from visp.cli.sim import KEEP_ALIVE
from visp.invoker.keepalive import POLICIES

SMALL = ("--actions", "30", "--invocations", "500", "--invokers", "1", "--memory", "4GB")


def test_the_policies_are_those_of_the_server():
    assert tuple(POLICIES) == KEEP_ALIVE


def test_a_table_by_policy(visp):
    done = visp("sim", *SMALL)
    lines = done.stdout.splitlines()
    assert (done.exit_code, done.stderr) == (0, "")
    assert lines[0].startswith("generated: 30 actions, 1 h")
    assert lines[1].split() == list(POLICIES)
    assert any(line.startswith("cold starts ") for line in lines)


def test_json_replays_to_the_byte(visp):
    first, again, other = (visp("sim", *SMALL, "--seed", seed, "--json").stdout for seed in ("5", "5", "6"))
    assert first == again != other
    told = json.loads(first)
    assert [one["policy"] for one in told["policies"]] == list(POLICIES)
    assert told["setup"] == {
        "invokers": 1,
        "memory_mb": 4096,
        "starts_at_once": 8,
        "idle_s": 3600.0,
        "stem_cells_most": 8,
    }


def test_csv_of_chosen_policies(visp):
    lines = visp(
        "sim", *SMALL, "--policy", "lru", "--policy", "timeout", "--policy", "lru", "--csv"
    ).stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["policy", "lru", "timeout"]


def test_a_trace_is_cut_to_its_first_invocations_and_hours(visp, tmp_path):
    lines = "".join(f"A,f{number % 5},{60 * number + 1},1\n" for number in range(200))
    (tmp_path / "trace.txt").write_text("app,func,end_timestamp,duration\n" + lines)

    def count(*flags: str) -> int:
        source = f"azure2021:{tmp_path / 'trace.txt'}"
        done = visp("sim", "--workload", source, "--policy", "lru", "--json", *flags)
        [one] = json.loads(done.stdout)["policies"]
        return int(one["invocations"])

    assert (count(), count("--invocations", "10"), count("--hours", "0.5")) == (200, 10, 30)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--workload", "azure2019"), "no workload: azure2019 (generated, azure2019:FOLDER or azure2021:FILE)"),
        (("--workload", "azure2019:absent"), "absent: No such file or directory"),
        (("--workload", "azure2021:absent"), "absent: No such file or directory"),
        (("--memory", "much"), "--memory: no size: much"),
        (("--memory", "0"), "--memory: no size: 0"),
        (("--json", "--csv"), "--json or --csv, not both"),
        (("--plot", "a.gif"), "a plot's name ends in one of"),
    ],
)
def test_what_cannot_be_is_told(visp, flags, sentence):
    done = visp("sim", *SMALL, *flags)
    assert (done.exit_code, done.stdout) == (2, "")
    assert sentence in done.stderr


@pytest.mark.slow  # matplotlib takes its time to import
def test_a_plot_is_written_beside_the_table(visp, tmp_path):
    pytest.importorskip("matplotlib")
    done = visp("sim", *SMALL, "--plot", str(tmp_path / "out.html"))
    assert done.exit_code == 0
    assert "<svg" in (tmp_path / "out.html").read_text()
    done = visp("sim", *SMALL, "--plot", str(tmp_path / "none" / "out.svg"))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "No such file" in done.stderr
