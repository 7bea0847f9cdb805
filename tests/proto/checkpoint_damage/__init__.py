"""Damaged checkpoints."""
