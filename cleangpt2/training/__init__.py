"""The training loop and what it stands on: optimisers, checkpoints, the log of a run."""
