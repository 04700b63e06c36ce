"""Multiple time stepping: cheap forces at every step, and at every k-th what they lack, as an impulse.

The reversible reference system propagator of Tuckerman, Berne and Martyna, J. Chem. Phys. 97, 1990 (1992), with a cheap
model of all forces as the reference system:

    momenta += k Δt/2 (F - F_cheap);   k steps of Δt of an integrator with F_cheap;   momenta += k Δt/2 (F - F_cheap)

The trajectory is that of F, with an error that falls as (k Δt)² (F - F_cheap).  If F is the derivative of an energy,
that energy is conserved, whether or not F_cheap is.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.md.md import MolecularDynamics

from ase_fastchgnet.calculator import FastCHGNet
from ase_fastchgnet.workflows.ensembles import Ensemble, names

Forces = Literal["conservative", "direct", "mts"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InnerSteps:
    """The cheap part of a run."""

    calculator: Calculator
    number: int  # from one impulse to the next

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"mts_steps={self.number}: expected a number of steps, 1 or more")

    def check(self, steps: int) -> None:
        """ValueError if a run of so many steps ends between two impulses, where its energy is not known."""
        if steps % self.number:
            whole = steps // self.number * self.number
            raise ValueError(
                f"steps={steps} is no multiple of mts_steps={self.number}; {whole} and {whole + self.number} are"
            )

    def whole(self, interval: int) -> int:
        """The number of steps, `interval` or a little more, after which there is an impulse."""
        return -(-interval // self.number) * self.number

    def of(self, ensemble: Ensemble, name: str) -> Ensemble:
        """`ensemble` with impulses; ValueError if they would not do there."""
        if not ensemble.impulses:
            raise ValueError(
                f"forces='mts' does not go with ensemble {name!r}; use one of {names(lambda other: other.impulses)}"
            )
        bath = ensemble.bath
        return replace(
            ensemble,
            integrator=partial(Respa, integrator=ensemble.integrator, inner=self),
            state=tuple(f"inner.{attribute}" for attribute in ensemble.state),
            bath=None if bath is None else lambda md: bath(md.inner),
        )


class Respa(MolecularDynamics):
    """Steps of an integrator with cheap forces, between impulses that make up for what these lack.

    `nsteps` counts the inner steps and grows by `inner.number` at a time.  `inner` moves atoms of its own.  Its
    thermostat leaves the canonical distribution of the momenta as it is, and so samples that of the energy of `atoms`.
    """

    def __init__(
        self,
        atoms: Atoms,
        timestep: float,
        *,
        integrator: Callable[..., MolecularDynamics],
        inner: InnerSteps,
        **arguments: Any,
    ) -> None:
        """`timestep` (ASE's units) is that of `integrator`, which takes `arguments`."""
        super().__init__(atoms, timestep)
        self._number = inner.number
        cheap = atoms.copy()
        cheap.calc = inner.calculator
        self.inner: Any = integrator(cheap, timestep=timestep, **arguments)  # ASE's base class knows no step()

    def step(self) -> None:
        """From one impulse to the next; each is half of it before and half of it after."""
        atoms, cheap = self.atoms, self.inner.atoms
        self._push()
        cheap.set_momenta(atoms.get_momenta(), apply_constraint=False)
        for _ in range(self._number):
            self.inner.step()
        atoms.set_positions(cheap.positions, apply_constraint=False)
        atoms.set_momenta(cheap.get_momenta(), apply_constraint=False)
        self._push()
        self.nsteps += self._number - 1  # ASE counts the last one

    def _push(self) -> None:
        lack = self.atoms.get_forces(md=True) - self.inner.atoms.get_forces(md=True)
        self.atoms.set_momenta(self.atoms.get_momenta() + self._number * self.dt / 2 * lack)


def calculators(
    calculator: Calculator | None, forces: Forces | None, mts_steps: int, inner_calculator: Calculator | None
) -> tuple[Calculator, InnerSteps | None]:
    """Whose energies and forces a run has, and the cheap part of "mts"; the arguments are those of `md`."""
    if forces not in (None, "conservative", "direct", "mts"):
        raise ValueError(f"forces={forces!r}: expected 'conservative', 'direct' or 'mts'")
    if inner_calculator is not None and forces != "mts":
        raise ValueError("inner_calculator is for forces='mts'")
    calculator = calculator or FastCHGNet()
    if forces is None:
        return calculator, None
    if forces != "mts":
        return with_forces(calculator, forces), None
    if isinstance(calculator, FastCHGNet):
        calculator = with_forces(calculator, "conservative")
    return calculator, InnerSteps(calculator=inner_calculator or with_forces(calculator, "direct"), number=mts_steps)


def with_forces(calculator: Calculator, forces: Literal["conservative", "direct"]) -> FastCHGNet:
    """`calculator`, or one like it if its forces are of the other kind; ValueError if it is not FastCHGNet."""
    if not isinstance(calculator, FastCHGNet):
        raise ValueError(
            f"{type(calculator).__name__} has no {forces} forces, which are FastCHGNet's: leave `forces` out, or for "
            "'mts' give the calculator of cheap forces as inner_calculator"
        )
    if calculator.parameters["forces"] == forces:
        return calculator
    other = copy.copy(calculator)
    other.set(forces=forces)
    return other
