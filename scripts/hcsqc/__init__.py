"""Which encoder finds the aberrant cells of a high-content screen with the fewest labels?

The library behind the workflow. It knows neither Snakemake nor argparse.
"""

__version__ = "0.1.0"
