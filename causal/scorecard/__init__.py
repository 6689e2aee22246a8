"""An experiment from its looks to a decision: its spec, its reading and the scorecard of both."""
