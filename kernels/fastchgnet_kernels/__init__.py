"""The operations CHGNet is made of, each a module with `forward` and a hand-derived `backward`. Needs torch, numpy."""

from fastchgnet_kernels import angle_basis, bond_basis, gated_message, gated_update, segment_sum

__all__ = ["angle_basis", "bond_basis", "gated_message", "gated_update", "segment_sum"]
