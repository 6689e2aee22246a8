"""The seam between data and inference: requests, frames, moments, results, specs."""
