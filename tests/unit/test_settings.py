"""Settings come from file, variables and flags, in this order, and each one is documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from visp.settings import Leaf, SettingsError, leaves, load

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


def row(leaf: Leaf) -> str:
    default = leaf.default if leaf.default != "" else "(empty)"
    default = str(default).lower() if isinstance(default, bool) else default
    return f"| `{leaf.toml_name}` | `{leaf.variable}` | {default} | {leaf.sentence} |"


def test_every_setting_is_documented_with_its_default() -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert rows == [row(leaf) for leaf in leaves()]


def test_every_setting_has_a_sentence() -> None:
    assert [leaf.toml_name for leaf in leaves() if not leaf.sentence] == []


def test_flags_win_over_variables_and_those_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "visp.toml"
    file.write_text("port = 1\nhost = '::1'\n[pool]\nidle_s = 1.5\nstem_cells = 7\n")
    environ = {"VISP_PORT": "2", "VISP_POOL__IDLE_S": "2.5"}
    loaded = load(config=file, environ=environ, flags={"port": 3})
    assert (loaded.settings.port, loaded.settings.host) == (3, "::1")
    assert (loaded.settings.pool.idle_s, loaded.settings.pool.stem_cells) == (2.5, 7)
    assert loaded.origins["pool", "idle_s"] == "VISP_POOL__IDLE_S"
    assert loaded.origins["host",] == str(file)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"VISP_PORT": "many"}, "setting port (from VISP_PORT)"),
        ({"VISP_PORT": "70000"}, "setting port (from VISP_PORT)"),
        ({"VISP_LEDGER__DURABILITY": "none"}, "setting ledger.durability"),
        ({"VISP_NO__SUCH": "1"}, "VISP_NO__SUCH is no setting"),
        ({"VISP_QUEUE__ACTIVATIONS": "0"}, "setting queue.activations"),
    ],
)
def test_a_wrong_setting_is_named_with_its_origin(environ: dict[str, str], said: str, tmp_path: Path) -> None:
    empty = tmp_path / "visp.toml"
    empty.touch()
    with pytest.raises(SettingsError, match=r".") as caught:
        load(config=empty, environ=environ)
    assert said in str(caught.value)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "visp.toml"
    file.write_text("port = \n")
    with pytest.raises(SettingsError, match="is no TOML"):
        load(config=file, environ={})
    with pytest.raises(SettingsError, match="cannot be read"):
        load(config=tmp_path / "absent.toml", environ={})
