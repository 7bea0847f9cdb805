"""Fully connected conditional random fields: mean-field inference."""
