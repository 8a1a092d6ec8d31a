"""Records of jobs that never ran, for tests and benchmarks of what reads records."""


def made_record(key: str, **changes) -> dict:
    """Return what a job's `run.json` holds, with some of it changed."""
    return {
        "key": key,
        "stage": key.split("/")[0],
        "script": "made.py",
        "status": "FINISHED",
        "started": "2026-01-02T03:04:05+00:00",
        "parameters": {"neighbours": 5, "wells": ["B02", "C03"], "nothing": None},
        "metrics": {"crops": 12},
        "curves": [],
        "cost": {"wall_s": 2.5, "cpu_s": 2.0, "device": "cpu", "gpu_memory_mb": None},
        "inputs": {"splits.parquet": {"bytes": 3, "sha256": "f" * 64}},
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "git": {"commit": "abc", "dirty": False},
        "code_digest": "c0de",
        "config_digest": "c0nf",
        "slurm_job_id": None,
        "node": "here",
    } | changes
