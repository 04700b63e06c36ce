"""GraphBatch → energy, forces, stress and magnetic moments: checkpoints and the two backends that evaluate them."""
