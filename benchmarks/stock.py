"""The calculator of stock chgnet, made without a word."""

import contextlib
import io
import warnings

from ase.calculators.calculator import Calculator


def stock_calculator(device: str = "cpu") -> Calculator:
    """CHGNetCalculator with the 0.3.0 weights; its warnings are switched off for good."""
    warnings.filterwarnings("ignore", module=r"chgnet\.")
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations in its dependencies
        from chgnet.model.dynamics import CHGNetCalculator

        calculator = CHGNetCalculator(use_device=device)
    assert isinstance(calculator, Calculator)
    return calculator
