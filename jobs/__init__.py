"""The jobs of the suite, one per file."""
