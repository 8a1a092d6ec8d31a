"""Screens: simulated plates, the index of fields, and the fixed intensity range of a plate.

in   the images of a plate (not inputs of the DAG: indexing looks at them, cropping reads them)
out  simulated/{screen}/{plate}.truth.parquet,
     screens/{screen}/{plate}.{fields,scale,illumination}.parquet; {plate}.refreshed.json if asked for
"""

import time


include: "functions/screens.smk"


rule simulate_plate:
    """Write a plate of simulated images, named and laid out as the real ones, and its truth."""
    output:
        image_csv=local(f"{STUDY}/simulated/{{screen}}/{{plate}}.image.csv"),
        truth=f"{STUDY}/simulated/{{screen}}/{{plate}}.truth.parquet",
        record=f"{STUDY}/runs/simulate/{{screen}}/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/simulate/{{screen}}/{{plate}}.log",
    wildcard_constraints:
        screen=one_of(SIMULATED),
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=minutes(60),
    params:
        images=lambda wc: image_folder(wc.screen),
        settings=lambda wc: flags(screen_entry(wc)["simulate"]),
        code=code_digest("screens/simulate_plate.py"),
    shell:
        '"$HCSQC" --log {log:q} screens/simulate_plate.py --plate {wildcards.plate:q} {params.settings}'
        " --images {params.images:q} --image-csv {output.image_csv:q} --truth {output.truth:q}"
        " --record {output.record:q}"


rule index_plate:
    """List the fields of a plate, with each well's treatment where an image CSV tells it."""
    input:
        tables=source_tables_input,
    output:
        fields=f"{STUDY}/screens/{{screen}}/{{plate}}.fields.parquet",
        record=f"{STUDY}/runs/index/{{screen}}/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/index/{{screen}}/{{plate}}.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=minutes(30),
    params:
        source=source_flags,
        code=code_digest("screens/index_plate.py"),
    shell:
        '"$HCSQC" --log {log:q} screens/index_plate.py --screen {wildcards.screen:q} --plate {wildcards.plate:q}'
        " {params.source} --output {output.fields:q} --record {output.record:q}"


rule measure_scale:
    """Fix the intensity range of each channel of a plate, and its illumination if corrected."""
    input:
        fields=f"{STUDY}/screens/{{screen}}/{{plate}}.fields.parquet",
        functions=illumination_input,
    output:
        scale=f"{STUDY}/screens/{{screen}}/{{plate}}.scale.parquet",
        illumination=f"{STUDY}/screens/{{screen}}/{{plate}}.illumination.parquet",
        record=f"{STUDY}/runs/scale/{{screen}}/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/scale/{{screen}}/{{plate}}.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=minutes(30),
    params:
        images=lambda wc: image_folder(wc.screen, wc.plate),
        channels=lambda wc: settings.channels(config, wc.screen),
        screen=lambda wc: flags(
            pick_given(screen_entry(wc), "nucleus_channel", "z_projection", "bits", "illumination")
            | settings.nucleus_size(config, wc.screen)
        ),
        settings=flags(
            pick(
                config["crops"],
                "scale_fields",
                "scale_background",
                "scale_cells",
                "illumination_fields",
            )
        ),
        code=code_digest("screens/measure_scale.py"),
    shell:
        '"$HCSQC" --log {log:q} screens/measure_scale.py --fields {input.fields:q} --images {params.images:q}'
        " --channels {params.channels:q} {params.screen} {params.settings}"
        " --output {output.scale:q} --illumination-output {output.illumination:q}"
        " --record {output.record:q}"


rule refresh_plate:
    """Look at a plate's images again; rewrite its index if one was replaced, added or deleted."""
    output:
        # An earlier receipt says when the images were last read: it must not be deleted.
        receipt=update(f"{STUDY}/screens/{{screen}}/{{plate}}.refreshed.json"),
        record=f"{STUDY}/runs/refresh/{{screen}}/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/refresh/{{screen}}/{{plate}}.log",
    conda:
        "../envs/core.yaml"
    threads: 2
    resources:
        mem_mb=growing(1000),
        runtime=minutes(120),
    params:
        source=source_flags,
        images=lambda wc: image_folder(wc.screen, wc.plate),
        screen=lambda wc: flags(pick_given(screen_entry(wc), "z_projection")),
        fields=lambda wc: plate_file("screens", wc.screen, wc.plate, "fields.parquet"),
        summary=lambda wc: plate_file("crops", wc.screen, wc.plate, "summary.parquet"),
        # A refresh on request always looks again.
        asked=lambda wc: time.time_ns(),
    shell:
        '"$HCSQC" --log {log:q} screens/refresh_plate.py --screen {wildcards.screen:q} --plate {wildcards.plate:q}'
        " {params.source} --plate-images {params.images:q} {params.screen}"
        " --fields {params.fields:q} --summary {params.summary:q} --threads {threads}"
        " --receipt {output.receipt:q} --record {output.record:q}"
