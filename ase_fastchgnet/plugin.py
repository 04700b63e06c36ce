"""Entry point of the group `ase.plugins`: tells ASE of the calculator "fastchgnet".

ASE loads every plugin at start-up, without try/except, so nothing heavy is imported here.
"""

from ase._4.plugins.plugin import CalculatorPlugin  # provisional in ASE 3.29; this is the only file that names it

__ase_plugins__ = {
    CalculatorPlugin(
        name="fastchgnet",
        citation="B. Deng et al., Nature Machine Intelligence 5, 1031 (2023), doi:10.1038/s42256-023-00716-3",
        implementation="ase_fastchgnet.calculator.FastCHGNet",
    )
}
