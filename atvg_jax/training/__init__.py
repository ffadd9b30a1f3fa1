"""Losses, steps, checkpoints and the training loop."""
