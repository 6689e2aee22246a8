"""How far panel estimates can be believed: trends that break, tests that miss them, placebos."""
