"""phonons, eos and elastic through real processes: summaries, files, tables of several, and what goes wrong."""

import csv
import json
from pathlib import Path

import pytest
from ase.build import bulk, molecule
from ase.io import read, write
from command import Run, fastchgnet

from ase_fastchgnet import EquationOfState, eos
from ase_fastchgnet.workflows import elasticity, equation_of_state, lattice_dynamics

PNG = b"\x89PNG"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "POSCAR", bulk("Si", a=5.5))
    write(tmp_path / "salt.cif", bulk("NaCl", "rocksalt", a=5.6))
    write(tmp_path / "water.xyz", molecule("H2O"))
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_wrong_usage(run: Run, *words: str) -> None:
    said = " ".join(run.stderr.replace("│", " ").split())
    assert run.code == 2, said
    assert run.stdout == ""
    assert all(word in said for word in words), said


def test_eos_of_one_structure_prints_the_fit_and_fills_a_folder(folder: Path) -> None:
    run = fastchgnet("eos", "salt.cif", "--out", "new/salt", "--points", "7", "--kind", "vinet", cwd=folder)
    assert run.code == 0, run.stderr
    expected: EquationOfState = eos(read(folder / "salt.cif"), points=7, kind="vinet")
    assert f"{expected.bulk_modulus:.1f}" in run.stdout
    assert "vinet through 7 volumes" in run.stdout
    out = folder / "new" / "salt"
    assert names(out) == set(equation_of_state.FILES)
    values = json.loads((out / "eos.json").read_text())
    assert values["bulk_modulus_GPa"] == pytest.approx(expected.bulk_modulus, rel=1e-3)
    assert (out / "eos.png").read_bytes().startswith(PNG)
    assert run.stderr.endswith("1 structure done\n")


def test_eos_of_several_makes_a_table_and_goes_on_after_failures(folder: Path) -> None:
    files = ["POSCAR", "water.xyz", "missing.cif", "salt.cif"]
    run = fastchgnet("eos", *files, "--out", "eos", "--points", "5", cwd=folder)
    assert run.code == 1
    assert "Traceback" not in run.stderr
    said = run.stderr.splitlines()
    assert "2 structures done, 2 failed:" in said
    assert any(line.startswith("  water.xyz: needs a crystal, periodic in three directions") for line in said)
    assert "  missing.cif: no such file" in said
    rows = list(csv.DictReader((folder / "eos" / "summary.csv").read_text().splitlines()))
    assert [row["structure"] for row in rows] == ["POSCAR", "salt.cif"]
    for row, line in zip(rows, run.stdout.splitlines()[-2:], strict=True):
        assert line.split()[-1] == row["structure"]
        assert float(line.split()[3]) == pytest.approx(float(row["bulk_modulus_GPa"]), abs=0.051)
    made = [path for path in (folder / "eos").iterdir() if path.is_dir()]
    assert len(made) == 2
    assert all(names(path) == set(equation_of_state.FILES) for path in made)


def test_eos_without_a_minimum_says_so(folder: Path) -> None:
    write(folder / "wide.vasp", bulk("NaCl", "rocksalt", a=6.4))
    run = fastchgnet("eos", "wide.vasp", "--no-relax", "--fixed-ions", cwd=folder)
    assert run.code == 1
    assert run.stdout == ""
    assert "wide.vasp: the energy has no minimum between" in run.stderr


def test_elastic_prints_the_tensor_and_fills_a_folder(folder: Path) -> None:
    run = fastchgnet("elastic", "POSCAR", "--out", ".", "--max-strain", "0.002", cwd=folder)
    assert run.code == 0, run.stderr
    values = json.loads((folder / "elastic.json").read_text())
    assert values["stable"] is True
    assert values["spacegroup"] == "Fd-3m"
    first = [float(cell) for cell in run.stdout.splitlines()[2].split()]
    assert first == pytest.approx(values["tensor_GPa"][0], abs=0.051)
    assert names(folder) > set(elasticity.FILES)


def test_phonons_prints_what_matters_and_fills_a_folder(folder: Path) -> None:
    run = fastchgnet("phonons", "POSCAR", "--supercell", "2x2x2", "--mesh", "15", "--out", "phonons", cwd=folder)
    assert run.code == 0, run.stderr
    assert "1 displaced supercell of 16 atoms (2 × 2 × 2 cells)" in run.stdout
    assert "no imaginary modes" in run.stdout
    out = folder / "phonons"
    assert names(out) == set(lattice_dynamics.FILES)
    assert all((out / name).read_bytes().startswith(PNG) for name in ("bands.png", "dos.png", "thermal.png"))
    assert "phonopy:" in (out / "phonopy_params.yaml").read_text()

    again = fastchgnet("phonons", "POSCAR", "--out", "phonons", cwd=folder)
    assert_wrong_usage(again, "phonons/phonopy_params.yaml exists", "--overwrite")


def test_phonons_warns_of_imaginary_modes(folder: Path) -> None:
    run = fastchgnet("phonons", "salt.cif", "--supercell", "2x2x2", "--mesh", "15", cwd=folder)
    assert run.code == 0, run.stderr
    assert "imaginary modes, lowest" in run.stdout
    (warning,) = (line for line in run.stderr.splitlines() if "imaginary" in line)
    assert "the supercell is too small" in warning


@pytest.mark.parametrize("size", ["2x2", "axbxc", "large"])
def test_a_supercell_that_is_none_is_wrong_usage(size: str, folder: Path) -> None:
    assert_wrong_usage(fastchgnet("phonons", "POSCAR", "--supercell", size, cwd=folder), size, "such as 3x3x2")


@pytest.mark.parametrize("command", ["elastic", "phonons"])
def test_a_missing_file_is_named_and_the_status_is_1(command: str, folder: Path) -> None:
    run = fastchgnet(command, "missing.cif", cwd=folder)
    assert run.code == 1
    assert run.stdout == ""
    assert "  missing.cif: no such file" in run.stderr.splitlines()
