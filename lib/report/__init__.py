"""A run and what it tells: parameters, results, figures, explorers; no models."""
