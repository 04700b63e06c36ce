"""The ensembles of molecular dynamics by name: which of ASE's integrators, with fs, K and GPa at the border."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.nptberendsen import Inhomogeneous_NPTBerendsen, NPTBerendsen
from ase.md.nvtberendsen import NVTBerendsen
from ase.md.verlet import VelocityVerlet


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides a trajectory besides structure and calculator; `md` says what each means."""

    ensemble: str
    temperature: float | None  # K
    pressure: float  # GPa
    timestep: float  # fs
    thermostat_time: float  # fs
    barostat_time: float  # fs
    bulk_modulus: float | None  # GPa
    initial_temperature: float | None  # K
    seed: int

    def __post_init__(self) -> None:
        if self.ensemble not in ENSEMBLES:
            raise ValueError(f"ensemble={self.ensemble!r} is not one of {', '.join(ENSEMBLES)}")
        for name in ("timestep", "thermostat_time", "barostat_time"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}={getattr(self, name)}: expected a time in fs, greater than 0")
        for name in ("temperature", "initial_temperature"):
            if not 0 <= (getattr(self, name) or 0) < np.inf:
                raise ValueError(f"{name}={getattr(self, name)}: expected a temperature in K, 0 or more")
        if not np.isfinite(self.pressure):
            raise ValueError(f"pressure={self.pressure}: expected a pressure in GPa")
        if self.bulk_modulus is not None and not 0 < self.bulk_modulus < np.inf:
            raise ValueError(f"bulk_modulus={self.bulk_modulus}: expected a modulus in GPa, greater than 0")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: expected a whole number, 0 or more")
        self._check_against_ensemble(ENSEMBLES[self.ensemble])

    def _check_against_ensemble(self, ensemble: "Ensemble") -> None:
        if ensemble.thermostat and not self.temperature:
            raise ValueError(f"ensemble {self.ensemble!r} needs a temperature (K) greater than 0")
        if self.pressure and not ensemble.barostat:
            raise ValueError(
                f"pressure={self.pressure}, but {self.ensemble!r} keeps the cell fixed; use "
                f"{names(lambda other: other.barostat)}"
            )
        if ensemble.by_bulk_modulus and self.bulk_modulus is None:
            raise ValueError(
                f"ensemble {self.ensemble!r} needs bulk_modulus (GPa; roughly is enough): it sets how far the cell "
                "gives way to a pressure"
            )
        if self.bulk_modulus is not None and not ensemble.by_bulk_modulus:
            raise ValueError(
                f"bulk_modulus={self.bulk_modulus} means nothing to {self.ensemble!r}; it is for "
                f"{names(lambda other: other.by_bulk_modulus)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """One of ASE's integrators and what has to be known about it."""

    integrator: Callable[..., MolecularDynamics]
    arguments: Callable[[Settings], dict[str, Any]]  # in ASE's units; besides atoms, timestep and rng
    state: tuple[str, ...] = ()  # attributes that the next step depends on, besides atoms and rng
    bath: Callable[[Any], float] | None = None  # eV; constant with potential + kinetic energy.  None: nothing is
    random: bool = False
    thermostat: bool = True
    barostat: bool = False
    by_bulk_modulus: bool = False
    constraints: bool = True  # whether it is right where atoms are held
    impulses: bool = False  # whether momenta may be changed between steps, as `multiple_timesteps` does

    def build(self, atoms: Atoms, settings: Settings, rng: np.random.Generator) -> MolecularDynamics:
        """The integrator that will move `atoms`; random numbers come from `rng`."""
        if atoms.constraints and not self.constraints:
            held = ", ".join(type(constraint).__name__ for constraint in atoms.constraints)
            raise ValueError(
                f"ensemble {settings.ensemble!r} is not right for a structure with constraints ({held}): remove them, "
                f"or use one of {names(lambda other: other.constraints)}"
            )
        if self.barostat and not (atoms.pbc.all() and atoms.cell.rank == 3):
            raise ValueError(
                f"ensemble {settings.ensemble!r} needs a cell that is periodic in three directions; pbc is "
                f"{atoms.pbc.tolist()} and the cell has {atoms.cell.rank} independent vectors"
            )
        arguments = self.arguments(settings)
        if self.random:
            arguments["rng"] = rng
        return self.integrator(atoms, timestep=settings.timestep * units.fs, **arguments)


def names(keep: Callable[[Ensemble], bool]) -> str:
    """The names of some ensembles, for a message."""
    return ", ".join(name for name, ensemble in ENSEMBLES.items() if keep(ensemble))


def _langevin(settings: Settings) -> dict[str, Any]:
    # fixcm=True is deprecated in ASE, as it does not sample quite the right distribution.
    friction = 1 / (settings.thermostat_time * units.fs)
    return {"temperature_K": settings.temperature, "friction": friction, "fixcm": False}


def _baoab(settings: Settings) -> dict[str, Any]:
    return {"temperature_K": settings.temperature, "T_tau": settings.thermostat_time * units.fs}


def _rescaling(settings: Settings) -> dict[str, Any]:
    return {"temperature_K": settings.temperature, "taut": settings.thermostat_time * units.fs}


def _chain(settings: Settings) -> dict[str, Any]:
    return {"temperature_K": settings.temperature, "tdamp": settings.thermostat_time * units.fs}


def _chains(settings: Settings) -> dict[str, Any]:
    barostat = {"pressure_au": settings.pressure * units.GPa, "pdamp": settings.barostat_time * units.fs}
    return _chain(settings) | barostat


def _rescaled_cell(settings: Settings) -> dict[str, Any]:
    assert settings.bulk_modulus is not None
    barostat = {
        "pressure_au": settings.pressure * units.GPa,
        "taup": settings.barostat_time * units.fs,
        "compressibility_au": 1 / (settings.bulk_modulus * units.GPa),
    }
    return _rescaling(settings) | barostat


def _of_cell(dynamics: IsotropicMTKNPT | MTKNPT, kinetic: float) -> float:
    """Energy of thermostat, barostat and cell; `kinetic` is that of the cell's motion."""
    # ASE has the sum with potential and kinetic energy, in which it asks some integrators' calculators for a free
    # energy that not all of them have.
    chains = dynamics._thermostat.get_thermostat_energy() + dynamics._barostat.get_barostat_energy()
    return float(chains + kinetic + dynamics._pressure_au * dynamics._get_volume())


# With constraints, chains go wrong by counting 3 N degrees of freedom whatever is held, and Berendsen's rescaling by
# taking the momentum of held atoms from the others.
_CHAIN = ("_q", "_p", "_thermostat._eta", "_thermostat._p_eta")
_CHAINS = (*_CHAIN, "_barostat._xi", "_barostat._p_xi")

ENSEMBLES = {
    "nve": Ensemble(
        integrator=VelocityVerlet, arguments=lambda s: {}, bath=lambda md: 0.0, thermostat=False, impulses=True
    ),
    "nvt-bussi": Ensemble(
        integrator=Bussi,
        arguments=_rescaling,
        state=("transferred_energy",),
        bath=lambda md: -float(md.transferred_energy),
        random=True,
        impulses=True,
    ),
    "nvt-langevin": Ensemble(integrator=Langevin, arguments=_langevin, random=True, impulses=True),
    "nvt-langevin-baoab": Ensemble(integrator=LangevinBAOAB, arguments=_baoab, random=True, impulses=True),
    "nvt-nose-hoover": Ensemble(
        integrator=NoseHooverChainNVT,
        arguments=_chain,
        state=_CHAIN,
        bath=lambda md: float(md._thermostat.get_thermostat_energy()),
        constraints=False,
    ),
    "nvt-berendsen": Ensemble(integrator=NVTBerendsen, arguments=_rescaling, constraints=False),
    "npt-mtk": Ensemble(
        integrator=MTKNPT,
        arguments=_chains,
        state=(*_CHAINS, "_h", "_p_g"),
        bath=lambda md: _of_cell(md, md._get_cell_kinetic_energy()),
        barostat=True,
        constraints=False,
    ),
    "npt-mtk-isotropic": Ensemble(
        integrator=IsotropicMTKNPT,
        arguments=_chains,
        state=(*_CHAINS, "_eps", "_p_eps", "_cell0", "_volume0"),
        bath=lambda md: _of_cell(md, md._p_eps**2 / (2 * md._barostat.W)),
        barostat=True,
        constraints=False,
    ),
    "npt-berendsen": Ensemble(
        integrator=Inhomogeneous_NPTBerendsen,
        arguments=_rescaled_cell,
        barostat=True,
        by_bulk_modulus=True,
        constraints=False,
    ),
    "npt-berendsen-isotropic": Ensemble(
        integrator=NPTBerendsen,
        arguments=_rescaled_cell,
        barostat=True,
        by_bulk_modulus=True,
        constraints=False,
    ),
}
