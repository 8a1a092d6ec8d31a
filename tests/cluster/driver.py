"""Snakemake that asks SLURM every second which jobs have ended.

By itself it waits ten seconds longer each time that none has, up to three minutes: most of the time
that a study of small jobs takes.
"""

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, seconds: None)
main()
