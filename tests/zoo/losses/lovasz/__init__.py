"""The Lovász losses."""
