"""Progress: a bar where somebody looks, lines in the log elsewhere, silence where asked for."""

import logging
import sys

import pytest

from ase_fastchgnet import progress as module
from ase_fastchgnet.progress import progress


def test_without_a_terminal_a_run_leaves_its_last_line_and_few_others_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO), progress("MD", 1000) as meter:
        for step in range(1001):
            meter.update(step, f"{step} K")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["MD: 1000/1000  1000 K"]  # it took less than a second


def test_a_long_run_is_logged_as_it_goes(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: clock)
    with caplog.at_level(logging.INFO), progress("MD", 1000) as meter:
        for step in range(1001):
            clock = 0.1 * step
            meter.update(step)
    done = [int(record.getMessage().split()[1].partition("/")[0]) for record in caplog.records]
    assert done == list(range(100, 1001, 100))  # every tenth, 10 s


def test_silence_is_kept_where_asked_for(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.INFO), progress("MD", 10, shown=False) as meter:
        meter.update(10)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_a_bar_goes_to_standard_error_with_its_note(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("relax", 4, shown=True) as meter:
        meter.update(4, "fmax 0.012")
    out, err = capfd.readouterr()
    assert out == ""
    assert "relax" in err
    assert "4/4" in err
    assert "fmax 0.012" in err


def test_nothing_is_drawn_where_standard_error_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert not sys.stderr.isatty()
    with progress("relax", 4) as meter:
        meter.update(4)
    assert capfd.readouterr() == ("", "")
