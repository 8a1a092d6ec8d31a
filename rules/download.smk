"""Images from their servers: one archive after the other, each plate unpacked before the next.

in   archives of the screens
out  {images}/downloaded/{file}.json and {plate}.unpacked.json, which say what has come and stay
     with the images, so that another study fetches nothing; downloads/plan.json

A receipt or marker that exists has no rule: whatever changes, in code or config or by --forceall,
Snakemake cannot delete it and fetch anew. That is why these rules have no digest of their code.
"""

import json
import re
import time

from hcsqc.download import archives

WITH_ARCHIVES = {
    name: {
        key: config["screens"][name][key]
        for key in ("images", "archives", "plates")
        if key in config["screens"][name]
    }
    for name in SCREENS
    if "archives" in config["screens"][name]
}
try:
    STEPS = {str(path): step for path, step in archives.steps(WITH_ARCHIVES).items()}
except InputError as error:
    raise WorkflowError(str(error)) from None
# A chain keeps the order and one transfer at a time with any number of cores, and on a cluster too,
# where Snakemake does not count the cores of local rules. Its files lie with the images, on this disk.
BEFORE = dict(zip(list(STEPS.values())[1:], map(local, STEPS)))
FILES = {
    path.removesuffix(".json"): step
    for path, step in STEPS.items()
    if isinstance(step, archives.Remote)
}
PLATES = {
    path.removesuffix(".unpacked.json"): step
    for path, step in STEPS.items()
    if isinstance(step, archives.PlateArchives)
}
FILES_LEFT = [re.escape(path) for path in FILES if not Path(f"{path}.json").exists()]
PLATES_LEFT = [re.escape(path) for path in PLATES if not Path(f"{path}.unpacked.json").exists()]
DOWNLOAD_PLAN = f"{STUDY}/downloads/plan.json"
# Without archives it is the plan that says so.
DOWNLOADED = [local(path) for path in STEPS] or [DOWNLOAD_PLAN]


rule plan_downloads:
    """Say what is to be fetched, how long that takes and whether there is room."""
    output:
        plan=DOWNLOAD_PLAN,
        record=f"{STUDY}/runs/download/plan/run.json",
    log:
        f"{STUDY}/logs/download/plan.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        screens=lambda wildcards: json.dumps(WITH_ARCHIVES, sort_keys=True),
        settings=flags(config["download"]),
        # Never the same, so that each run that fetches something says first what.
        started=time.time(),
    shell:
        '"$HCSQC" --log {log:q} download/plan_downloads.py --screens {params.screens:q} {params.settings}'
        " --output {output.plan:q} --record {output.record:q}"


rule download_file:
    """Fetch one file, going on where an earlier attempt broke off, and verify it."""
    input:
        plan=DOWNLOAD_PLAN,
        before=lambda wc: BEFORE.get(FILES[wc.path], []),
    output:
        receipt=local("{path}.json"),
    log:
        f"{STUDY}/logs/download/{{path}}.log",
    wildcard_constraints:
        path=one_of(FILES_LEFT),
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        url=lambda wc: FILES[wc.path].url,
        target=lambda wc: str(FILES[wc.path].target),
        settings=flags(pick(config["download"], "attempts", "backoff_s", "timeout_s")),
        record=lambda wc: f"{STUDY}/runs/download/{FILES[wc.path].key}/run.json",
    shell:
        '"$HCSQC" --log {log:q} download/download_file.py --url {params.url:q} --target {params.target:q}'
        " {params.settings} --receipt {output.receipt:q} --record {params.record:q}"


rule unpack_plate:
    """Unpack the archives of a plate below its screen's images."""
    input:
        plan=DOWNLOAD_PLAN,
        before=lambda wc: BEFORE.get(PLATES[wc.path], []),
        receipts=lambda wc: [local(str(remote.receipt)) for remote in PLATES[wc.path].archives],
    output:
        marker=local("{path}.unpacked.json"),
    log:
        f"{STUDY}/logs/unpack/{{path}}.log",
    wildcard_constraints:
        path=one_of(PLATES_LEFT),
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        plate=lambda wc: PLATES[wc.path].plate,
        archives=lambda wc: [str(remote.target) for remote in PLATES[wc.path].archives],
        images=lambda wc: str(PLATES[wc.path].images),
        settings=flags(pick(config["download"], "delete_archives")),
        record=lambda wc: f"{STUDY}/runs/unpack/{PLATES[wc.path].key}/run.json",
    shell:
        '"$HCSQC" --log {log:q} download/unpack_plate.py --plate {params.plate:q} --archives {params.archives:q}'
        " --receipts {input.receipts:q} --images {params.images:q} {params.settings}"
        " --output {output.marker:q} --record {params.record:q}"
