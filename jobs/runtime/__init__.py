"""What touches the outside world: arguments, settings, sessions, tables, runs and the terminal."""
