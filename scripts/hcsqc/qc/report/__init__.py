"""The quality-control report of a screen."""
