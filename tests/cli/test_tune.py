"""`fastchgnet tune` through a real process."""

import re
from pathlib import Path

import pytest
from ase.build import bulk
from command import fastchgnet


def test_tune_measures_shows_compares_and_keeps_what_it_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    crystal = bulk("NaCl", "rocksalt", a=5.6)
    crystal.rattle(0.1, seed=1)
    crystal.write(tmp_path / "salt.cif")
    run = fastchgnet("tune", "salt.cif", "--exhaustive", cwd=tmp_path)
    assert run.code == 0, run.stderr
    assert re.findall(r"^(\w+) of salt\.cif: ", run.stdout, re.MULTILINE) == ["AtomConv", "BondConv", "AngleUpdate"]
    assert max(map(len, run.stdout.splitlines())) <= 80
    counts = re.findall(r"chosen: [\d,]+ rows, (\d+) of (\d+) measured; .* best of all (\d+)", run.stdout)
    assert len(counts) == 3
    for some, there_are, everything in counts:
        assert int(some) <= max(1, int(there_are) / 5)
        assert everything == there_are
    ratios = [float(line.split()[2]) for line in run.stdout.splitlines() if " MiB " in line]
    assert all(1.0 <= ratio < 100 for ratio in ratios)
    assert len(ratios) == sum(int(there_are) for _, there_are, _ in counts)
    assert len(list(tmp_path.glob("cache/**/gated_*.json"))) == 3
