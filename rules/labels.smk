"""Labels and draws.

in   nuclei and fields of every plate; label files, or the truth of a simulated or derived screen
out  labels/{screen}.parquet, .random.parquet, .disagreements.csv; splits/{screen}.parquet, .composition.csv
"""


include: "functions/labels.smk"


ALL_BUDGETS = [
    budget
    for probe in config["study"]["probes"]
    for budget in settings.probe_budgets(config, probe)
]


rule label_screen:
    """Give each label its crop, by the nearest nucleus."""
    input:
        nuclei=lambda wc: labelled_crops(wc.screen, "nuclei.parquet"),
        fields=treated_fields,
        truth=truth_files,
        labels=label_files,
    output:
        labels=f"{STUDY}/labels/{{screen}}.parquet",
        random=f"{STUDY}/labels/{{screen}}.random.parquet",
        unmatched=f"{STUDY}/labels/{{screen}}.unmatched.csv",
        disagreements=f"{STUDY}/labels/{{screen}}.disagreements.csv",
        record=f"{STUDY}/runs/labels/{{screen}}/run.json",
    log:
        f"{STUDY}/logs/labels/{{screen}}.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=minutes(30),
    params:
        wells=lambda wc: screen_entry(wc)["evaluation_wells"],
        # Only crops of derived screens are judged by it: elsewhere its change runs nothing again.
        settings=lambda wc: flags(
            config["labels"]
            | {"focus_edge": config["qc"]["focus_edge"] if wc.screen in DERIVED else 0}
        ),
        window=source_window,
        # A function of the input, whose change Snakemake does not look at: one more plate labels
        # nothing again.
        unlabelled=lambda wc, input: unlabelled_plates(wc.screen),
        code=code_digest("labels/label_screen.py"),
    shell:
        '"$HCSQC" --log {log:q} labels/label_screen.py --screen {wildcards.screen:q} --nuclei {input.nuclei:q}'
        " --fields {input.fields:q}"
        " --truth {input.truth:q} --label-files {input.labels:q}"
        " --evaluation-wells {params.wells:q} {params.settings} --window-px {params.window}"
        " --unlabelled-plates {params.unlabelled:q}"
        " --output {output.labels:q} --random {output.random:q} --unmatched {output.unmatched:q}"
        " --disagreements {output.disagreements:q}"
        " --record {output.record:q}"


rule split_labels:
    """Divide the labelled crops, by group, into test sets and ranked training lists."""
    input:
        labels=f"{STUDY}/labels/{{screen}}.parquet",
    output:
        splits=f"{STUDY}/splits/{{screen}}.parquet",
        composition=f"{STUDY}/splits/{{screen}}.composition.csv",
        record=f"{STUDY}/runs/splits/{{screen}}/run.json",
    log:
        f"{STUDY}/logs/splits/{{screen}}.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=minutes(30),
    params:
        wells=lambda wc: screen_entry(wc)["evaluation_wells"],
        settings=flags(
            {
                # Labels must be enough for the smallest; budgets that they are too few for are marked
                # in the tables.
                "smallest": min(ALL_BUDGETS),
                "largest": max(ALL_BUDGETS),
                "test_crops": config["study"]["test_crops"],
                "draws": max(
                    settings.probe_draws(config, probe) for probe in config["study"]["probes"]
                ),
            }
        ),
        group_by=GROUP_BY,
        code=code_digest("labels/split_labels.py"),
    shell:
        '"$HCSQC" --log {log:q} labels/split_labels.py --labels {input.labels:q}'
        " --evaluation-wells {params.wells:q} {params.settings} {params.group_by}"
        " --output {output.splits:q} --composition {output.composition:q}"
        " --record {output.record:q}"
