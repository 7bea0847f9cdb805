"""File formats: bytes become records. Knows no networks, no torch, no tensorflow."""
