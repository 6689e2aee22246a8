"""One spec over many regions, outcomes and placebos: a fit each, and what they say together."""
