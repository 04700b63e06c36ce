"""Files that commands write: their formats, their names, and that they are whole or not there."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.io import read

from ase_fastchgnet import evaluate
from ase_fastchgnet.cli.destination import stems
from ase_fastchgnet.cli.inputs import Input
from ase_fastchgnet.cli.outputs import atomic
from ase_fastchgnet.cli.results import ONE_STRUCTURE, RESULT_SUFFIXES, print_table, results_file, row_of
from ase_fastchgnet.workflows.calculators import with_results


@pytest.fixture(scope="module")
def structures() -> list[Atoms]:
    """A crystal and a molecule with their results."""
    crystal = bulk("MgO", "rocksalt", a=4.2)
    crystal.rattle(0.05, seed=1)
    both = [crystal, molecule("H2O")]
    return [with_results(atoms, prediction.results()) for atoms, prediction in zip(both, evaluate(both), strict=True)]


def write_all(path: Path, structures: list[Atoms]) -> None:
    with results_file(path) as add:
        for n, atoms in enumerate(structures):
            add(atoms, row_of(f"file {n}.cif", atoms))


@pytest.mark.parametrize("suffix", [s for s in RESULT_SUFFIXES if s not in (".csv", ".json")])
def test_structures_come_back_with_all_results(suffix: str, structures: list[Atoms], tmp_path: Path) -> None:
    write_all(tmp_path / f"results{suffix}", structures)
    found = read(tmp_path / f"results{suffix}", ":")
    assert [atoms.info["structure"] for atoms in found] == ["file 0.cif", "file 1.cif"]
    for atoms, wanted in zip(found, structures, strict=True):
        assert list(atoms.symbols) == list(wanted.symbols)
        assert atoms.calc.results.keys() == wanted.calc.results.keys()
        for name, value in wanted.calc.results.items():
            np.testing.assert_allclose(atoms.calc.results[name], value, atol=1e-8)


def test_json_holds_plain_numbers_under_names_with_units(structures: list[Atoms], tmp_path: Path) -> None:
    write_all(tmp_path / "results.json", structures)
    crystal, water = json.loads((tmp_path / "results.json").read_text())
    rebuilt = Atoms(crystal["symbols"], crystal["positions_A"], cell=crystal["cell_A"], pbc=crystal["pbc"])
    (prediction,) = evaluate([rebuilt])
    assert crystal["energy_eV"] == pytest.approx(prediction.energy, abs=1e-5)
    np.testing.assert_allclose(crystal["stress_eV_A3"], prediction.stress, atol=1e-6)
    assert water["pressure_GPa"] is None
    assert "stress_eV_A3" not in water


def test_csv_has_one_line_for_each_structure(structures: list[Atoms], tmp_path: Path) -> None:
    write_all(tmp_path / "results.csv", structures)
    with open(tmp_path / "results.csv", newline="") as file:
        crystal, water = csv.DictReader(file)
    assert crystal["structure"] == "file 0.cif"
    assert crystal["formula"] == "MgO"
    assert float(crystal["energy_eV_per_atom"]) == pytest.approx(structures[0].get_potential_energy() / 2)
    assert water["volume_A3"] == ""


@pytest.mark.parametrize("suffix", ONE_STRUCTURE)
def test_a_structure_alone_comes_back(suffix: str, structures: list[Atoms], tmp_path: Path) -> None:
    crystal = structures[0].copy()
    crystal.calc = structures[0].calc
    crystal.set_constraint(FixAtoms([1]))
    write_all(tmp_path / f"crystal{suffix}", [crystal])
    found = read(tmp_path / f"crystal{suffix}")
    assert list(found.symbols) == ["Mg", "O"]
    (moved,) = evaluate([found])
    assert moved.energy == pytest.approx(crystal.get_potential_energy(), abs=1e-4)
    if suffix == ".vasp":
        assert found.constraints[0].index.tolist() == [1]


@pytest.mark.parametrize("suffix", [*RESULT_SUFFIXES, *ONE_STRUCTURE])
def test_without_structures_there_is_no_file(suffix: str, tmp_path: Path) -> None:
    write_all(tmp_path / f"none{suffix}", [])
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_when_it_is_whole_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("old")

    def interrupted() -> None:
        with atomic(path) as unfinished:
            unfinished.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    with atomic(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_table_is_aligned_and_marks_what_there_is_not(
    structures: list[Atoms], capsys: pytest.CaptureFixture[str]
) -> None:
    print_table([row_of(f"file {n}.cif", atoms) for n, atoms in enumerate(structures)])
    head, units, crystal, water = capsys.readouterr().out.splitlines()
    assert head.index("structure") == crystal.index("file 0.cif") == water.index("file 1.cif")
    assert units.split() == ["eV", "eV", "eV/Å", "GPa", "μB"]
    assert water.split()[4] == "-"
    assert f"{structures[0].get_potential_energy():.4f}" in crystal


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.cif", "b.vasp"], ["a", "b"]),
        (["x/a.cif", "y/a.cif", "b.cif"], ["x-a", "y-a", "b"]),
        (["x/POSCAR", "y/CONTCAR"], ["x-Cu", "y-Cu"]),
        (["POSCAR.first", "POSCAR-2.vasp"], ["first", "2"]),
        (["a.cif", "a.vasp"], ["a", "a-2"]),
        (["/x/a.cif", "../a.cif"], ["x-a", "a"]),
    ],
)
def test_files_in_a_folder_are_called_as_their_sources_are(paths: list[str], names: list[str]) -> None:
    sources = [Input(name=path, path=Path(path), frame=None, atoms=bulk("Cu")) for path in paths]
    assert stems(sources) == names


def test_files_of_frames_carry_their_numbers() -> None:
    sources = [Input(name=f"run.traj@{n}", path=Path("run.traj"), frame=n, atoms=bulk("Cu")) for n in (0, 10)]
    assert stems(sources) == ["run_0", "run_10"]
