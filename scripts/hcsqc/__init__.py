"""Which encoder finds the aberrant cells of a high-content screen with the fewest labels?

The library behind the workflow. It does not know Snakemake; `core.cli` alone knows command lines.
"""

__version__ = "0.1.0"
