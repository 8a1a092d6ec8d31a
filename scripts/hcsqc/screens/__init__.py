"""Screens: how images lie on disk and are read, made screens, intensity range, uneven light."""
