"""Screens: simulated plates, the index of fields, and the fixed intensity range of a plate.

in   the images of a plate (not inputs of the DAG: indexing looks at them, cropping reads them)
out  simulated/{screen}/{plate}.truth.parquet, screens/{screen}/{plate}.{fields,scale}.parquet
"""


rule simulate_plate:
    """Write a plate of simulated images, named and laid out as the real ones, and its truth."""
    output:
        image_csv=f"{STUDY}/simulated/{{screen}}/{{plate}}.image.csv",
        truth=f"{STUDY}/simulated/{{screen}}/{{plate}}.truth.parquet",
        record=f"{STUDY}/runs/simulate/{{screen}}/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/simulate/{{screen}}/{{plate}}.log",
    wildcard_constraints:
        screen=one_of(SIMULATED),
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        images=lambda wc: image_folder(wc.screen),
        settings=lambda wc: flags(screen_entry(wc)["simulate"]),
        code=code_digest("simulate_plate.py"),
    shell:
        "python scripts/simulate_plate.py --plate {wildcards.plate:q} {params.settings}"
        " --images {params.images:q} --image-csv {output.image_csv:q} --truth {output.truth:q}"
        " --record {output.record:q} 2>&1 | tee {log:q}"


rule index_plate:
    """List the fields of a plate by file name, with each well's treatment."""
    input:
        image_csv=image_csv_input,
    output:
        fields=f"{STUDY}/screens/{{screen}}/{{plate}}.fields.parquet",
        record=f"{STUDY}/runs/index/{{screen}}/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/index/{{screen}}/{{plate}}.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        images=lambda wc: image_folder(wc.screen),
        image_csv=lambda wc: image_csv(wc.screen, wc.plate),
        layout=lambda wc: screen_entry(wc)["layout"],
        code=code_digest("index_plate.py"),
    shell:
        "python scripts/index_plate.py --screen {wildcards.screen:q} --plate {wildcards.plate:q}"
        " --layout {params.layout} --images {params.images:q} --image-csv {params.image_csv:q}"
        " --output {output.fields:q} --record {output.record:q} 2>&1 | tee {log:q}"


rule measure_scale:
    """Fix the intensity range of each channel of a plate."""
    input:
        fields=f"{STUDY}/screens/{{screen}}/{{plate}}.fields.parquet",
    output:
        scale=f"{STUDY}/screens/{{screen}}/{{plate}}.scale.parquet",
        record=f"{STUDY}/runs/scale/{{screen}}/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/scale/{{screen}}/{{plate}}.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        images=lambda wc: image_folder(wc.screen),
        channels=lambda wc: settings.channels(config, wc.screen),
        settings=flags(pick(config["crops"], "scale_fields", "scale_low", "scale_high")),
        code=code_digest("measure_scale.py"),
    shell:
        "python scripts/measure_scale.py --fields {input.fields:q} --images {params.images:q}"
        " --channels {params.channels} {params.settings}"
        " --output {output.scale:q} --record {output.record:q} 2>&1 | tee {log:q}"
