"""`visp property`: the file that OpenWhisk's clients share."""

import stat


def test_set_writes_the_file_for_its_owner_alone_and_keeps_other_lines(visp, tmp_path):
    file = tmp_path / "wskprops"
    file.write_text("# mine\nAUTH=old\nOTHER=1\n")
    done = visp("property", "set", "--auth", "u:k", "--apihost", "localhost:1")
    assert done.stdout.splitlines() == [
        "ok: whisk auth set. Run 'visp property get --auth' to see the new value.",
        "ok: whisk API host set to localhost:1",
    ]
    assert file.read_text() == "# mine\nOTHER=1\nAUTH=u:k\nAPIHOST=localhost:1\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_key_can_come_from_standard_input(visp, tmp_path):
    assert visp("property", "set", "--auth", "-", input="u:k\n").exit_code == 0
    assert (tmp_path / "wskprops").read_text() == "AUTH=u:k\n"


def test_unset_takes_lines_out(visp, tmp_path):
    (tmp_path / "wskprops").write_text("AUTH=a\nAPIHOST=h\n")
    assert visp("property", "unset", "--auth").stdout == "ok: whisk auth unset.\n"
    assert (tmp_path / "wskprops").read_text() == "APIHOST=h\n"


def test_what_cannot_be_set(visp, tmp_path):
    assert visp("property", "set").exit_code == 2
    assert visp("property", "unset").exit_code == 2
    assert visp("property", "set", "--apihost", "ftp://x").exit_code == 2
    assert visp("property", "set", "--auth", "a\nAPIHOST=evil").exit_code == 2
    assert visp("property", "set", "--auth", "a", WSK_CONFIG_FILE="").exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_get_shows_what_is_in_force(api, visp):
    api.answer("GET /namespaces", body=["guest"])
    api.answer("GET /api/v1", body={"build": "2026-01-01", "buildno": "7"})
    lines = visp("property", "get").stdout.splitlines()
    assert f"{'whisk API host':<24}{api.url}" in lines
    assert f"{'whisk namespace':<24}guest" in lines
    assert f"{'client cert':<24}not set" in lines
    assert visp("property", "get", "--apihost", "-o", "raw").stdout == f"{api.url}\n"


def test_get_of_a_server_that_is_away_still_shows_the_rest(visp):
    done = visp("property", "get", "--namespace", "--apibuild", WHISK_APIHOST="http://127.0.0.1:1")
    assert done.exit_code == 0
    assert done.stdout.split() == ["whisk", "namespace", "_", "whisk", "API", "build", "Unknown"]
