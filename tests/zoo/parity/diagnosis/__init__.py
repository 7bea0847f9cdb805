"""Faults that a check must find and explain."""
