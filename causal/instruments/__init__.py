"""What stands behind instrumental variables: stages, tests, sets, compliers."""
