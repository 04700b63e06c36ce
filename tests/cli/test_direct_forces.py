"""--forces direct: what predict and relax make of it."""

import json
from pathlib import Path

import numpy as np
from ase.build import bulk
from command import fastchgnet

from ase_fastchgnet import evaluate


def test_predict_writes_direct_forces_and_the_energies_of_the_model(tmp_path: Path) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.rattle(0.1, seed=1)
    atoms.write(tmp_path / "salt.extxyz")
    run = fastchgnet("predict", "salt.extxyz", "--forces", "direct", "--out", "all.json", cwd=tmp_path)
    assert run.code == 0
    (written,) = json.loads((tmp_path / "all.json").read_text())
    (direct,), (exact,) = evaluate([atoms], forces="direct"), evaluate([atoms])
    assert np.allclose(written["forces_eV_A"], direct.forces, atol=1e-5)  # float32, positions in eight decimals
    assert abs(written["energy_eV"] - exact.energy) < 1e-5
    assert abs(direct.forces - exact.forces).max() > 1e-3


def test_a_model_without_a_readout_is_wrong_usage_for_relax_too(tmp_path: Path) -> None:
    bulk("Si").write(tmp_path / "Si.cif")
    run = fastchgnet("relax", "Si.cif", "--forces", "direct", "--model", "r2scan", cwd=tmp_path)
    assert run.code == 2
    assert "no weights for direct forces" in " ".join(run.stderr.replace("│", " ").split())
