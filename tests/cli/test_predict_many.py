"""`fastchgnet predict` over many structures: worker processes, results that grow, runs that go on."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from command import Run, fastchgnet

from ase_fastchgnet import evaluate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with seven crystals, one of which is of an element that no model knows, and a damaged file."""
    crystals = tmp_path / "crystals"
    crystals.mkdir()
    for number in range(6):
        crystal = bulk("NaCl", "rocksalt", a=5.5 + number / 20)
        crystal.rattle(0.05, seed=number)
        write(crystals / f"{number}.vasp", crystal)
    write(crystals / "6.vasp", Atoms("Es", cell=[4, 4, 4], pbc=True))
    (crystals / "damaged.cif").write_text("data_x\nnonsense")
    return tmp_path


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_wrong_usage(run: Run, *words: str) -> None:
    said = " ".join(run.stderr.replace("│", " ").split())
    assert run.code == 2, said
    assert all(word in said for word in words), said


def test_workers_fill_a_file_that_names_what_failed(folder: Path) -> None:
    run = fastchgnet("predict", "crystals", "--out", "new/all.jsonl", "--devices", "2", cwd=folder)
    assert run.code == 1
    assert run.stdout == ""
    said = run.stderr.splitlines()
    assert "6 structures evaluated, 2 failed:" in said
    assert any(line.startswith("  crystals/6.vasp: atom 0 has atomic number 99 (Es)") for line in said)
    assert any(line.startswith("  crystals/damaged.cif: cannot be read: ") for line in said)
    assert any(re.match(r"8 structures in [\d.]+ s: \d+ structures/s, \d+ atoms/s", line) for line in said)
    assert "written: new/all.jsonl" in said
    found = {str(record["id"]): record for record in records(folder / "new" / "all.jsonl")}
    assert len(found) == 8
    assert sorted(name for name in found if "error" in found[name]) == ["crystals/6.vasp", "crystals/damaged.cif"]
    names = [f"crystals/{number}.vasp" for number in range(6)]
    for name, prediction in zip(names, evaluate([read(folder / name) for name in names]), strict=True):
        # float32 in batches of other sizes
        assert found[name]["energy_eV"] == pytest.approx(prediction.energy, abs=1e-5)
        np.testing.assert_allclose(found[name]["forces_eV_A"], prediction.forces, atol=1e-4)


def test_a_run_goes_on_where_it_was_left_and_overwrites_nothing(folder: Path) -> None:
    assert fastchgnet("predict", "crystals/[012].vasp", "--out", "some.jsonl", cwd=folder).code == 0
    before = (folder / "some.jsonl").read_bytes()
    assert_wrong_usage(
        fastchgnet("predict", "crystals/[012].vasp", "--out", "some.jsonl", cwd=folder),
        "some.jsonl exists", "--resume", "--overwrite",
    )  # fmt: skip
    assert (folder / "some.jsonl").read_bytes() == before
    (folder / "some.jsonl").write_bytes(before[:-20])  # killed in the middle of a line
    run = fastchgnet("predict", "crystals/[0-4].vasp", "--out", "some.jsonl", "--resume", cwd=folder)
    assert run.code == 0, run.stderr
    assert "2 structures were there already" in run.stderr.splitlines()
    assert run.stderr.splitlines()[-1] == "5 structures evaluated"
    assert sorted(str(record["id"]) for record in records(folder / "some.jsonl")) == [
        f"crystals/{number}.vasp" for number in range(5)
    ]
    assert fastchgnet("predict", "crystals/[0-6].vasp", "--out", "some.jsonl", "--resume", cwd=folder).code == 1
    done = fastchgnet("predict", "crystals/[0-6].vasp", "--out", "some.jsonl", "--resume", cwd=folder)
    assert done.code == 0
    assert "7 structures were there already, 1 of them failed" in done.stderr.splitlines()
    other = fastchgnet("predict", "crystals/[1-4].vasp", "--out", "some.jsonl", "--resume", cwd=folder)
    assert other.code == 1
    assert "belongs to another source" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume", "--out", "a.csv"], ["--resume", ".jsonl or .parquet"]),
        (["--devices", "several"], ["'several' is not a device; use 'cpu', 'cuda' or 'cuda:N'"]),
        (["--devices", "0"], ["devices=0", "a number of worker processes"]),
        (["--devices", "cuda:77"], ["'cuda:77' is not available"]),
    ],
)
def test_wrong_usage_is_said_before_anything_is_written(folder: Path, arguments: list[str], words: list[str]) -> None:
    assert_wrong_usage(fastchgnet("predict", "crystals", *arguments, cwd=folder), *words)
    assert not list(folder.glob("a.*"))
