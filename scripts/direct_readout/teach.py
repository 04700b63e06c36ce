"""How the direct readout of 0.3.0 was made: `python -m scripts.direct_readout.teach label|train|test|write`.

Every step can be interrupted and resumes. The full recipe stands in the model card,
ase_fastchgnet/pretrained/0.3.0-direct.md.
"""
