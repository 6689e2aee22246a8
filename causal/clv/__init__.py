"""Customer lifetime value: probability models of repeat purchases and of their value."""
