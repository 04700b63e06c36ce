"""--tf32: what the command line makes of it where there is no GPU."""

import pytest
import typer

from ase_fastchgnet.cli.options import make_calculator


@pytest.mark.parametrize("devices", [None, "cpu"])
def test_tf32_on_a_cpu_is_wrong_usage(devices: str | None) -> None:
    device = "cpu" if devices is None else None
    with pytest.raises(typer.BadParameter, match=r"tf32=True is for Triton's kernels.* leave tf32 out"):
        make_calculator("0.3.0", device, "float32", devices, tf32=True)
