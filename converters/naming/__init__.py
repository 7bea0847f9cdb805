"""Naming schemes: tables from one way of naming a network's modules to another."""
