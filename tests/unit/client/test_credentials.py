"""Where the API is and whose key opens it."""

from pathlib import Path

import pytest

from visp.client.credentials import GUEST_AUTH, complete_host, resolve
from visp.client.errors import Misused
from visp.client.properties import change, file_of, read


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "props"
    path.write_text(
        "# a comment\n#AUTH=no\nAPIHOST = file.example\nAUTH=file:key=\nnonsense\nAPIVERSION=v3\nCERT=c\nKEY=k\n"
    )
    return path


def test_defaults(tmp_path):
    held = resolve({"HOME": str(tmp_path)})
    assert (held.apihost, held.auth, held.apiversion) == ("http://127.0.0.1:3233", GUEST_AUTH, "v1")
    assert held.base == "http://127.0.0.1:3233/api/v1"


def test_the_file_over_defaults(file):
    held = resolve({"WSK_CONFIG_FILE": str(file)})
    assert (held.apihost, held.auth, held.apiversion) == ("https://file.example", "file:key=", "v3")
    assert (held.cert, held.key) == ("c", "k")


def test_variables_over_the_file_and_flags_over_variables(file):
    environ = {
        "WSK_CONFIG_FILE": str(file),
        "WHISK_APIHOST": "env.example",
        "WHISK_AUTH": "env",
        "WHISK_APIVERSION": "v2",
    }
    held = resolve(environ)
    assert (held.apihost, held.auth, held.apiversion) == ("https://env.example", "env", "v2")
    held = resolve(environ, apihost="http://flag.example/", auth="flag", apiversion="v9", is_insecure=True)
    assert (held.apihost, held.auth, held.apiversion, held.is_insecure) == ("http://flag.example", "flag", "v9", True)


def test_an_empty_value_counts_as_none(file):
    held = resolve({"WSK_CONFIG_FILE": str(file), "WHISK_AUTH": "", "WHISK_APIHOST": ""}, auth="")
    assert (held.auth, held.apihost) == ("file:key=", "https://file.example")


def test_a_variable_that_is_empty_means_no_file(tmp_path):
    (tmp_path / ".wskprops").write_text("AUTH=home\n")
    assert resolve({"HOME": str(tmp_path)}).auth == "home"
    assert file_of({"HOME": str(tmp_path), "WSK_CONFIG_FILE": ""}) is None
    assert resolve({"HOME": str(tmp_path), "WSK_CONFIG_FILE": ""}).auth == GUEST_AUTH


@pytest.mark.parametrize(
    "host", ["example.org", "https://example.org", "http://10.0.0.1:3233", "127.0.0.1.example.org"]
)
def test_the_well_known_key_never_leaves_this_machine(tmp_path, host):
    assert resolve({"HOME": str(tmp_path)}, apihost=host).auth == ""


@pytest.mark.parametrize(
    ("typed", "complete"),
    [
        ("localhost", "http://localhost"),
        ("localhost:3233", "http://localhost:3233"),
        ("127.0.0.1:3233", "http://127.0.0.1:3233"),
        ("[::1]:3233", "http://[::1]:3233"),
        ("10.0.0.1:3233", "https://10.0.0.1:3233"),
        ("example.org", "https://example.org"),
        ("http://example.org/", "http://example.org"),
        ("https://example.org/whisk/", "https://example.org/whisk"),
    ],
)
def test_a_host_gets_its_scheme(typed, complete):
    assert complete_host(typed) == complete


@pytest.mark.parametrize(
    "typed",
    ["", "ftp://x", "http://", "http://x:port", "http://x:99999", "https://u:p@x", "a b", "x\r\ny", "http://x?q"],
)
def test_what_is_no_host(typed):
    with pytest.raises(Misused):
        complete_host(typed)


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(Misused, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe=1")
    with pytest.raises(Misused, match="is no text"):
        read(tmp_path / "binary")
    assert read(tmp_path / "absent") == {}


def test_a_change_goes_through_a_link_to_the_real_file(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("A=1\n")
    link.symlink_to(real)
    change(link, {"B": "2"})
    assert link.is_symlink()
    assert real.read_text() == "A=1\nB=2\n"
