"""Small structures and a count of what the calculator has run."""

import logging
from collections.abc import Callable

import pytest
from ase import Atoms
from ase.build import bulk, molecule


@pytest.fixture
def salt() -> Atoms:
    """Rock salt, eight atoms off their sites: every force and stress component is nonzero."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.08, seed=1)
    return atoms


@pytest.fixture
def iron() -> Atoms:
    """Two atoms with a magnetic moment each."""
    atoms = bulk("Fe", "bcc", a=2.87, cubic=True)
    atoms.rattle(0.05, seed=2)
    return atoms


@pytest.fixture
def water() -> Atoms:
    """A molecule: no cell, no periodic boundary."""
    return molecule("H2O")


@pytest.fixture
def passes(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What has been run since the last call of this, from the calculator's log: "forward" and "adjoint"."""
    caplog.set_level(logging.DEBUG, logger="ase_fastchgnet.calculator")

    def read() -> list[str]:
        ran = [r.getMessage().split()[0] for r in caplog.records if r.levelno == logging.DEBUG]
        caplog.clear()
        return ran

    return read
