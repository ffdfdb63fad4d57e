"""How right a run's answers are, beside the truth (see docs/EVALUATION.md)."""
