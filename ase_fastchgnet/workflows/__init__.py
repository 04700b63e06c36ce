"""From a structure to an answer: relaxation, molecular dynamics, phonons, equation of state, elasticity, barriers.

One file each; their functions are public names of `ase_fastchgnet`.  ASE's optimisers and integrators, phonopy and
pymatgen do the work; what is here chooses, batches, watches, and reports.
"""
