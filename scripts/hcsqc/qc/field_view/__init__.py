"""Whole fields of a screen beside their flags: read as crops show them, and opened in a viewer."""
