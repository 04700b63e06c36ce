"""The GPU benchmark: whether a CUDA device computes what it should, and then how fast and in how much memory.

    python -m benchmarks.gpu                           writes results/gpu-<its name>.json and .png
    python -m benchmarks.gpu --parts speed memory      some parts; the others stay in the file
    python -m benchmarks.gpu --quick                   small systems, few rounds, writes nothing

Nothing is measured before energies, forces, stress and magnetic moments on the device are those of the reference model
in float64 on the CPU, to the limits of tests/model/test_parity.py. Needs torch, triton, numpy, ase, vesin and
safetensors, and of a checkout no installation: PYTHONPATH=.:kernels. See docs/gpu.md.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence

import torch

from benchmarks import _gpu_parity, _gpu_profile, _gpu_report, _gpu_speed, _gpu_stock, _gpu_tuner
from benchmarks._gpu_setting import Row, Setting, repeats_of

PARTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "parity": lambda setting: _gpu_parity.measure(setting, full=True),
    "speed": _gpu_speed.measure_speed,
    "memory": _gpu_speed.measure_memory,
    "profile": _gpu_profile.measure,
    "stock": _gpu_stock.measure,
    "tuner": _gpu_tuner.measure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="What a CUDA device makes of it.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--systems", nargs="+", default=[], metavar="NAME", help="LiMnO2-512 and the like, for all parts"
    )
    parser.add_argument("--quick", action="store_true", help="small systems, few rounds, nothing is written")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device, and there is nothing else to measure here; see nvidia-smi")
    if options.device == "cpu" and not options.quick:
        parser.error("--device cpu shows that this program runs, and goes with --quick alone")
    for name in options.systems:
        repeats_of(name)
    device = torch.device("cpu") if options.device == "cpu" else torch.device("cuda", torch.cuda.current_device())
    run(options.parts, Setting(device, options.quick, tuple(options.systems)))


def run(parts: Sequence[str], setting: Setting) -> None:
    """Checks, then measures part by part; what there is so far is written at each row, as time on a device may end."""
    gpu = None if setting.quick else _gpu_report.described(setting.device)
    parity = checked(setting, full="parity" in parts)
    rows: dict[str, list[Row]] = {"parity": parity} if "parity" in parts else {}
    path = _gpu_report.write(rows, gpu) if gpu else None
    for part in (part for part in PARTS if part in parts and part != "parity"):
        rows[part] = []
        for row in PARTS[part](setting):
            rows[part].append(row)
            path = _gpu_report.write(rows, gpu) if gpu else None
        _gpu_report.show(part, rows[part])
    if gpu and path:
        print(f"written: {path}")
        _gpu_report.plot(path.with_suffix(".png"), gpu["name"], rows.get("speed", []))


def checked(setting: Setting, *, full: bool) -> list[Row]:
    """Parity of the device; ends the program if it is not there."""
    rows = list(_gpu_parity.measure(setting, full=full))
    _gpu_report.show("parity", rows)
    if wrong := _gpu_parity.missed(rows):
        print("\n".join(["not what the reference computes:", *wrong, "no speed is reported"]), file=sys.stderr)
        raise SystemExit(1)
    return rows


if __name__ == "__main__":
    main()
