"""Units: inside this package everything is in those of ASE (Å, eV, eV/Å³, μ_B)."""

GPA = 1 / 160.21766208
"""One gigapascal in eV/Å³, with the digits of CODATA 2014 that ASE and CHGNet use."""
