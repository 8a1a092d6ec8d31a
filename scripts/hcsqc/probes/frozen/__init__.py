"""Probes on frozen features: a module per kind, found by its name in the config.

Each has `Settings`, a dataclass of what the config says, and `classify`, which trains on every draw
and returns `task.Classified`.
"""
