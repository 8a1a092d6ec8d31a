"""Faults of machines, injected: what must be noticed, and what must cost nothing."""
