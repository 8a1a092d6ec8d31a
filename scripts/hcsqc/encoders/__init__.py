"""Encoders: backbones, weights, measures; one file format for every kind."""
