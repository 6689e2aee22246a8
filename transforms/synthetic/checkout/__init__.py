"""The world of an online shop that tries a new checkout."""
