"""Ways to carry a run out, and the run itself."""
