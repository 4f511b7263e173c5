"""Texts to tokens to batches: what a training step reads."""
