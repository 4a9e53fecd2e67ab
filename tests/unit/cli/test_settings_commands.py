"""`visp config show`, and how `visp start` and `visp doctor` read their flags."""

import json

from visp.cli import doctor
from visp.doctor import Finding
from visp.settings import leaves


def test_show_lists_every_setting_with_its_origin(visp, tmp_path):
    (tmp_path / "visp.toml").write_text("port = 1\n[pool]\nidle_s = 5\n")
    done = visp("config", "show", "--origin", "--set", "pool.idle_s=7", "--driver", "process", VISP_PORT="2")
    lines = done.stdout.splitlines()
    assert len(lines) == len(leaves())
    assert "port = 2  # VISP_PORT" in lines
    assert "pool.idle_s = 7.0  # --idle-s" in lines
    assert 'driver = "process"  # --driver' in lines
    assert 'host = "127.0.0.1"  # default' in lines


def test_show_as_json(visp):
    plain = json.loads(visp("config", "show", "--json", "--i-trust-all-code").stdout)
    assert plain["trust_all_code"] is True
    assert set(plain) == {leaf.toml_name for leaf in leaves()}
    told = json.loads(visp("config", "show", "--json", "--origin").stdout)
    assert told["port"] == {"value": 3233, "origin": "default"}


def test_a_setting_that_cannot_be_is_told(visp):
    for arguments in (("--set", "nonsense=1"), ("--set", "port"), ("--set", "port=x"), ("--config", "absent.toml")):
        for command in (("config", "show"), ("start",), ("doctor",)):
            done = visp(*command, *arguments)
            assert (done.exit_code, done.stdout) == (2, ""), arguments
            assert done.stderr.startswith("error: "), arguments


def test_start_hands_on_the_status_of_the_server(visp, tmp_path, capfd):
    done = visp("start", "--driver", "process", "--data-dir", str(tmp_path / "data"), "--port", "0")
    assert done.exit_code == 1
    assert "--i-trust-all-code" in done.stderr


def test_what_the_doctor_reports(capsys):
    fine = Finding(name="python", is_ok=True, says="3.11", mend="never shown")
    poor = Finding(name="node", is_ok=False, says="missing", mend="apt install nodejs", is_optional=True)
    bad = Finding(name="bwrap", is_ok=False, says="missing", mend="apt install bubblewrap")
    assert doctor.is_fit([])
    assert doctor.is_fit([fine, poor])
    assert not doctor.is_fit([fine, poor, bad])
    doctor.report([fine, poor, bad])
    assert capsys.readouterr().out.splitlines() == [
        "✓ python  3.11",
        "– node    missing",
        "          → apt install nodejs",
        "✗ bwrap   missing",
        "          → apt install bubblewrap",
    ]
