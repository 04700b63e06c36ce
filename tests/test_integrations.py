"""FastCHGNet where other packages expect an ASE calculator.

pymatgen and ASE come with the tests.  matcalc and atomate2 do not: their tests run where they are installed.
"""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator

from ase_fastchgnet import FastCHGNet, eos, relax


def salt() -> Atoms:
    crystal = bulk("NaCl", "rocksalt", a=5.6)
    crystal.rattle(0.1, seed=1)
    return crystal


def test_pymatgens_relax_takes_the_calculator() -> None:
    adaptor = pytest.importorskip("pymatgen.io.ase").AseAtomsAdaptor
    structure = adaptor.get_structure(salt())
    relaxed = structure.relax(calculator=FastCHGNet(), fmax=0.01)
    ours = relax(structure, fmax=0.01)
    assert ours.converged
    assert relaxed.volume == pytest.approx(ours.structure.volume, rel=5e-3)  # two optimisers, a soft crystal
    assert relaxed.calc.get_potential_energy() == pytest.approx(ours.energy, abs=1e-3)


def test_pymatgens_relax_takes_the_class() -> None:
    adaptor = pytest.importorskip("pymatgen.io.ase").AseAtomsAdaptor
    structure = adaptor.get_structure(salt())
    with pytest.warns(UserWarning, match="stress_weight is ignored"):  # which it passes to classes
        relaxed = structure.relax(calculator=FastCHGNet, fmax=0.1)
    assert relaxed.volume != structure.volume


def test_ases_sum_adds_a_correction_to_energy_forces_and_stress() -> None:
    crystal = salt()
    correction = LennardJones(sigma=2.5, epsilon=0.05, rc=6.0, smooth=True)  # in the place of a dispersion term
    parts = []
    for calculator in FastCHGNet(), correction, SumCalculator([FastCHGNet(), correction]):
        crystal.calc = calculator
        parts.append((crystal.get_potential_energy(), crystal.get_forces(), crystal.get_stress()))
    for chgnet, term, both in zip(*parts, strict=True):
        np.testing.assert_allclose(both, chgnet + term, rtol=1e-12, atol=1e-12)
        assert np.abs(term).max() > 1e-3


def test_a_workflow_takes_the_sum() -> None:
    correction = LennardJones(sigma=2.5, epsilon=0.05, rc=6.0, smooth=True)
    alone = relax(salt(), FastCHGNet(), fmax=0.02)
    both = relax(salt(), SumCalculator([FastCHGNet(), correction]), fmax=0.02)
    assert both.converged
    assert both.structure.get_volume() < 0.98 * alone.structure.get_volume()  # attraction


def test_matcalcs_properties_take_the_calculator() -> None:
    matcalc = pytest.importorskip("matcalc", reason="not a requirement of the tests: pip install matcalc")
    relaxed = matcalc.RelaxCalc(FastCHGNet(), fmax=0.01).calc(salt())
    ours = eos(relaxed["final_structure"], relax=False, max_strain=0.03)
    theirs = matcalc.EOSCalc(FastCHGNet(), relax_structure=False, max_abs_strain=0.03).calc(relaxed["final_structure"])
    # both fit Birch–Murnaghan to eleven energies, matcalc to atoms relaxed to another fmax
    assert theirs["bulk_modulus_bm"] == pytest.approx(ours.bulk_modulus, rel=0.05)


@pytest.mark.filterwarnings("ignore")  # what it and the packages below it have to say of each other
def test_a_job_of_atomate2_finds_the_calculator_by_its_dotted_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = pytest.importorskip(
        "atomate2.forcefields.jobs", reason="not a requirement of the tests: pip install atomate2"
    )
    jobflow = pytest.importorskip("jobflow")
    monkeypatch.chdir(tmp_path)
    adaptor = pytest.importorskip("pymatgen.io.ase").AseAtomsAdaptor
    maker = jobs.ForceFieldRelaxMaker(
        calculator_meta="ase_fastchgnet.FastCHGNet", calculator_kwargs={"dtype": "float64"}, relax_kwargs={"fmax": 0.01}
    )
    job = maker.make(adaptor.get_structure(salt()))
    document = jobflow.run_locally(job, ensure_success=True)[job.uuid][1].output
    assert document.forcefield_name == "FastCHGNet"
    assert document.is_force_converged
    assert document.output.energy == pytest.approx(relax(salt(), fmax=0.01).energy, abs=1e-3)
