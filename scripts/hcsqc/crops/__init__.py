"""Nuclei, the window around each, and the shards that hold the crops."""
