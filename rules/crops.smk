"""Crops: one window around each nucleus, a shard per plate.

in   screens/{screen}/{plate}.{fields,scale,illumination}.parquet and the images they name
out  crops/{screen}/{plate}.parquet, .nuclei.parquet, .summary.parquet (.truth.parquet if derived);
     figures/nuclei/{screen}/{plate}.png if asked for
"""

PICTURED_FIELDS = 12


include: "functions/crops.smk"


rule crop_plate:
    """Find the nuclei of a plate and cut a crop around each."""
    input:
        fields=f"{STUDY}/screens/{{screen}}/{{plate}}.fields.parquet",
        scale=f"{STUDY}/screens/{{screen}}/{{plate}}.scale.parquet",
        illumination=f"{STUDY}/screens/{{screen}}/{{plate}}.illumination.parquet",
        locations=locations_input,
    output:
        crops=f"{STUDY}/crops/{{screen}}/{{plate}}.parquet",
        nuclei=f"{STUDY}/crops/{{screen}}/{{plate}}.nuclei.parquet",
        summary=f"{STUDY}/crops/{{screen}}/{{plate}}.summary.parquet",
        record=f"{STUDY}/runs/crops/{{screen}}/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/crops/{{screen}}/{{plate}}.log",
    wildcard_constraints:
        screen=one_of([name for name in SCREENS if name not in DERIVED]),
    conda:
        "../envs/core.yaml"
    threads: 4
    resources:
        mem_mb=growing(2000),
        runtime=minutes(60),
    params:
        images=lambda wc: image_folder(wc.screen, wc.plate),
        screen=lambda wc: flags(pick_given(screen_entry(wc), "nucleus_channel", "z_projection")),
        locations=locations_flag,
        resolution=lambda wc: settings.crop_px_per_px(config, wc.screen),
        settings=lambda wc: flags(
            pick(
                config["crops"],
                "window_px",
                "border",
                "dtype",
                "scale_knee",
                "failed_fields",
                "nucleus_method",
            )
            | settings.nucleus_size(config, wc.screen)
        ),
        code=code_digest("crops/crop_plate.py"),
    shell:
        '"$HCSQC" --log {log:q} crops/crop_plate.py --fields {input.fields:q} --scale {input.scale:q}'
        " --illumination {input.illumination:q} {params.locations}"
        " --images {params.images:q} {params.screen} --crop-px-per-px {params.resolution}"
        " {params.settings} --threads {threads}"
        " --crops {output.crops:q} --nuclei {output.nuclei:q} --summary {output.summary:q}"
        " --record {output.record:q}"


rule plot_nuclei:
    """Show the nuclei found in some fields of a plate."""
    input:
        fields=f"{STUDY}/screens/{{screen}}/{{plate}}.fields.parquet",
        scale=f"{STUDY}/screens/{{screen}}/{{plate}}.scale.parquet",
        nuclei=f"{STUDY}/crops/{{screen}}/{{plate}}.nuclei.parquet",
        summary=f"{STUDY}/crops/{{screen}}/{{plate}}.summary.parquet",
    output:
        figure=f"{STUDY}/figures/nuclei/{{screen}}/{{plate}}.png",
        record=f"{STUDY}/runs/figures/nuclei/{{screen}}/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/figures/nuclei/{{screen}}/{{plate}}.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        images=lambda wc: image_folder(wc.screen, wc.plate),
        screen=lambda wc: flags(pick_given(screen_entry(wc), "nucleus_channel", "z_projection")),
        pictured=PICTURED_FIELDS,
        code=code_digest("crops/plot_nuclei.py"),
    shell:
        '"$HCSQC" --log {log:q} crops/plot_nuclei.py --fields {input.fields:q} --scale {input.scale:q}'
        " --nuclei {input.nuclei:q} --summary {input.summary:q}"
        " --images {params.images:q} {params.screen}"
        " --pictured {params.pictured}"
        " --output {output.figure:q} --record {output.record:q}"


rule derive_plate:
    """Beside each real crop, put copies that artefact models have degraded."""
    input:
        crops=lambda wc: plate_file("crops", derived_from(wc.screen), wc.plate, "parquet"),
        scale=lambda wc: plate_file("screens", derived_from(wc.screen), wc.plate, "scale.parquet"),
    output:
        crops=f"{STUDY}/crops/{{screen}}/{{plate}}.parquet",
        nuclei=f"{STUDY}/crops/{{screen}}/{{plate}}.nuclei.parquet",
        summary=f"{STUDY}/crops/{{screen}}/{{plate}}.summary.parquet",
        truth=f"{STUDY}/crops/{{screen}}/{{plate}}.truth.parquet",
        record=f"{STUDY}/runs/crops/{{screen}}/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/crops/{{screen}}/{{plate}}.log",
    wildcard_constraints:
        screen=one_of(DERIVED),
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=minutes(60),
    params:
        settings=flags(pick(config["crops"], "scale_knee")),
        nucleus=lambda wc: screen_entry(wc)["nucleus_channel"],
        diameter=lambda wc: nucleus_diameter_of_crops(wc.screen),
        copies=lambda wc: screen_entry(wc).get("copies", 1),
        code=code_digest("crops/derive_plate.py"),
    shell:
        '"$HCSQC" --log {log:q} crops/derive_plate.py --screen {wildcards.screen:q}'
        " --parent-crops {input.crops:q} --scale {input.scale:q} {params.settings}"
        " --nucleus-channel {params.nucleus:q} --nucleus-diameter-px {params.diameter}"
        " --copies {params.copies}"
        " --crops {output.crops:q} --nuclei {output.nuclei:q} --summary {output.summary:q}"
        " --truth {output.truth:q} --record {output.record:q}"
