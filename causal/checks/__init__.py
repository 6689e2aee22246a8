"""Checks whose outcome decides whether an estimate may be believed."""
