"""Other programs' own files."""
