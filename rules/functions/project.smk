"""Where the project lies: the folder whose scripts the rules run.

Of a module whose `snakefile` is `github(...)` or `gitlab(...)`, Snakemake reads the rules alone. The
same commit is then checked out below `.snakemake`, once.
"""

import subprocess
import tempfile
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.sourcecache import HostingProviderFile, LocalSourceFile


def project_folder(here):
    """Return the project's folder; `here` is that of this file, as Snakemake read it."""
    if isinstance(here, LocalSourceFile):
        return Path(str(here)).parent.parent
    if isinstance(here, HostingProviderFile):
        return checked_out(here.hosted_repo.repo_clone, here.ref)
    raise WorkflowError(
        f"hcsqc cannot run from {here}, because its rules run the scripts beside them; clone its "
        "repository and name the Snakefile in it, or use github(...) or gitlab(...)"
    )


def checked_out(repository, ref):
    """Return a folder with a commit of a repository, which is checked out unless it is there."""

    def git(folder, *words):
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True)
        if done.returncode:
            raise WorkflowError(
                f"git {words[0]} of hcsqc, {ref} of {repository}: {done.stderr.strip()}"
            )
        return done.stdout.strip()

    commit = git(repository, "rev-parse", "--verify", f"{ref}^{{commit}}")
    folder = Path(".snakemake/hcsqc").resolve() / commit
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            made = Path(temporary) / "hcsqc"
            git(temporary, "clone", "--quiet", "--no-checkout", Path(repository).resolve(), made)
            git(made, "checkout", "--quiet", "--detach", commit)
            try:
                made.rename(folder)
            except OSError:  # another job was first
                if not folder.exists():
                    raise
    return folder


PROJECT = project_folder(workflow.current_basedir)
