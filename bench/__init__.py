"""Side-by-side measurements against peers: `python -m bench`. Never part of the tests."""
