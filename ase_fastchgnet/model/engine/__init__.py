"""The fast path: forward and hand-derived adjoint over packed weights."""

from ase_fastchgnet.model.engine.engine import Engine, Tape

__all__ = ["Engine", "Tape"]
