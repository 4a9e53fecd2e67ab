"""Whether the machine has a core to spare, as the kernel counts."""

from pathlib import Path

from visp.clock import ManualClock
from visp.invoker.cores import WINDOW_S, Cores


def stat(path: Path, busy: int, idle: int) -> None:
    path.write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3\n")


def test_it_is_busy_when_nearly_nothing_idles(tmp_path: Path) -> None:
    path, clock = tmp_path / "stat", ManualClock()
    stat(path, 100, 100)
    cores = Cores(clock, str(path))
    assert not cores.are_busy()
    stat(path, 200, 102)
    assert not cores.are_busy(), "the window is not over"
    clock.advance(WINDOW_S)
    assert cores.are_busy()
    stat(path, 210, 112)
    clock.advance(WINDOW_S)
    assert not cores.are_busy()


def test_what_cannot_be_known_is_not_busy(tmp_path: Path) -> None:
    clock = ManualClock()
    cores = Cores(clock, str(tmp_path / "nothing"))
    clock.advance(WINDOW_S)
    assert not cores.are_busy()
    assert cores.count >= 1
