"""What a person sees while Snakemake runs: a line per stage, not Snakemake's lines per job."""
