"""Checkpoints to the native model."""
