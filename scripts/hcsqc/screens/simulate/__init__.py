"""Simulated plates in the layout of BBBC022 and BBBC021, with the truth about each nucleus.

Shapes, grey levels and noise imitate the eight open fields of BBBC022 plate 20585 (measured
there: variance = 0.4 x (level - 120) + 2^2 grey levels). MCF7 follows published pictures of
BBBC021 and is a looser likeness. Simulated data try the workflow out; they say nothing about
how well an encoder does on real screens.
"""
