"""The suite on trial: simulated experiments whose truth is known, and rates that were promised."""
