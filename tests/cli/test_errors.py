"""What a user can put right is one line; a bug keeps its traceback; the exit status tells."""

import logging
import warnings

import pytest
import typer
from typer.testing import CliRunner

from ase_fastchgnet.cli.app import app
from ase_fastchgnet.cli.report import Report, warnings_name
from ase_fastchgnet.workflows.relaxation import RelaxationError


def raises(monkeypatch: pytest.MonkeyPatch, error: BaseException, *options: str) -> tuple[int, str, object]:
    """Exit status, standard error and exception of a command in the middle of which `error` is raised."""

    def fail(*options: object, **named: object) -> None:
        raise error

    monkeypatch.setattr("ase_fastchgnet.cli.predict.make_calculator", fail)
    monkeypatch.setattr(logging.getLogger("ase_fastchgnet"), "level", logging.NOTSET)  # the command sets it
    with warnings.catch_warnings():  # and showwarning, as befits a process of its own
        result = CliRunner().invoke(app, [*options, "predict", "x.cif"])
    return result.exit_code, result.stderr, result.exception


@pytest.mark.parametrize(
    "error",
    [
        ValueError("fmax=-1 is no force"),
        ImportError("plots need matplotlib: pip install 'ase-fastchgnet[plot]'"),
        FileNotFoundError(2, "No such file", "x.json"),
        RelaxationError("the structure exploded", []),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_user_can_put_right_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    code, said, _ = raises(monkeypatch, error)
    assert code == 1
    assert said == f"error: {error}\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = KeyError("stress")
    code, said, found = raises(monkeypatch, bug)
    assert code == 1
    assert said == ""
    assert found is bug


def test_verbose_shows_where_an_error_was_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ValueError("fmax=-1 is no force")
    assert raises(monkeypatch, error, "--verbose")[2] is error


def test_an_interruption_is_one_line_with_the_status_of_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    code, said, _ = raises(monkeypatch, KeyboardInterrupt())
    assert (code, said) == (130, "interrupted\n")


def test_the_summary_names_the_failures_by_reason_and_the_status_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("relaxed")
    report.done(3)
    report.failed("a.cif", "system 2: atom 0 has atomic number 95 (Am)")
    report.failed("b.cif", "no such file")
    report.failed("c.cif", "no such file")
    with pytest.raises(typer.Exit) as end, report:
        pass
    assert end.value.exit_code == 1
    assert capsys.readouterr().err.splitlines() == [
        "3 structures relaxed, 3 failed:",
        "  a.cif: atom 0 has atomic number 95 (Am)",
        "  b.cif, c.cif: no such file",
    ]


def test_without_failures_the_summary_is_one_line_and_the_command_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with Report("evaluated") as report:
        report.done()
    assert capsys.readouterr().err == "1 structure evaluated\n"


def test_the_summary_is_printed_when_something_ends_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("relaxed")
    report.done(7)
    with pytest.raises(KeyboardInterrupt), report:
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "7 structures relaxed\n"


def test_every_warning_names_its_structure_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings_name(["a.cif", "b.cif"]):
        for _ in range(2):
            warnings.warn("system 1: atom 0 has no neighbour", stacklevel=1)
        warnings.warn("crystal system 'x' is not interpreted", stacklevel=1)
    assert capsys.readouterr().err.splitlines() == [
        "warning: b.cif: atom 0 has no neighbour",
        "warning: b.cif: atom 0 has no neighbour",
        "warning: a.cif: crystal system 'x' is not interpreted",
    ]
