"""Flags written into other programs' tables of profiles."""
