"""Training: labelled structures → cached graphs → batches → Network → losses → optimiser → checkpoint."""
