"""A run and what it tells: parameters, results, figures and explorers. Knows arrays and numbers, not models."""
