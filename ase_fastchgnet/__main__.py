"""`python -m ase_fastchgnet` is the `fastchgnet` command."""

from ase_fastchgnet.cli import main

main()
