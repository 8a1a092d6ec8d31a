"""Quality control: a detector made of the study, its threshold, and flags for every cell, field, well and plate.

in   ranking, encoders, labels, crops, nuclei, fields; or a detector of another study and no labels
out  qc/detector/, qc/model/; qc/{screen}/{cells.parquet,fields.csv,wells.csv,plates.csv,report.html} and others;
     the same tables of each plate in qc/{screen}/plates/{plate}/
"""


include: "functions/qc.smk"


QC = config["qc"]
QC_SCREENS = settings.qc_screens(config)
# A detector of another study stands in for one of this.
DETECTOR_NAMES = (
    "encoder.safetensors",
    "encoder.json",
    "detector.safetensors",
    "detector.json",
    "held_out.parquet",
)
DETECTOR = (QC["detector"] or f"{STUDY}/qc/detector").rstrip("/")
DETECTOR_FILES = [given(f"{DETECTOR}/{name}") for name in DETECTOR_NAMES]
# How grey levels become those of crops; a detector and its screens must agree on it.
SCALING = pick(config["crops"], "scale_background", "scale_cells", "scale_knee")
# Screens whose flags are compared with those that others published.
PUBLISHED = [name for name in QC_SCREENS if "published_flags" in config["screens"][name]]
# Labels, or what stands for them, to train a detector on.
HAS_DETECTOR = bool(QC["detector"] or config["screens"][TRAIN]["labels"])
LOGISTIC = [probe for probe in JUDGED if config["probes"][probe]["kind"] == "logistic"]
# Of the flags of a plate; those of the screen are these below each other.
PLATE_TABLES = ["cells.parquet", "fields.csv", "wells.csv", "plates.csv", "corrections.csv"]
RANKED_BY = (LOGISTIC or JUDGED or ["none"])[0]


rule qc:
    """Flags and a report for every screen that has images, and their runs in MLflow."""
    input:
        [f"{STUDY}/qc/{screen}/report.html" for screen in QC_SCREENS],
        [filtered_tables(screen) for screen in QC_SCREENS],
        [] if QC["detector"] else f"{STUDY}/qc/model",
        [] if BUCKET else f"{STUDY}/qc/mlflow.receipt.json",
    localrule: True


rule label_pages:
    """A page per screen, to label crops in the browser."""
    input:
        [f"{STUDY}/qc/{screen}/label_page.html" for screen in QC_SCREENS],
    localrule: True


rule suspicious_labels:
    """A page per labelled screen, to check the labels that held-out models contradict most."""
    input:
        [
            f"{STUDY}/qc/{screen}/suspicious_labels/page.html"
            for screen in QC_SCREENS
            if has_labels(screen)
        ],
    localrule: True


rule fit_detector:
    """Make the detector from all labels: the best encoder, or the one that the config names."""
    input:
        ranking=f"{STUDY}/tables/ranking.csv" if QC["encoder"] == "best" else [],
        encoders=detector_encoders(),
        about=[path.replace(".safetensors", ".json") for path in detector_encoders()],
        labels=f"{STUDY}/labels/{TRAIN}.parquet",
        random=f"{STUDY}/labels/{TRAIN}.random.parquet",
        crops=labelled_crops(TRAIN, "parquet"),
        scales=plate_scales(TRAIN, labelled_plates(TRAIN)),
    output:
        files=[f"{STUDY}/qc/detector/{name}" for name in DETECTOR_NAMES],
        record=f"{STUDY}/runs/qc/detector/run.json",
    log:
        f"{STUDY}/logs/qc/detector.log",
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        mem_mb=growing(4000),
        runtime=minutes(60),
    params:
        study=config["study"]["name"],
        screen=TRAIN,
        ranking=lambda wc, input: (
            flags({"ranking": input.ranking, "probe": RANKED_BY}) if input.ranking else ""
        ),
        encoder=QC["encoder"],
        window_um=flags({"window_um": config["crops"]["window_um"] or 0}),
        trained_on="simulated artefacts" if TRAIN in DERIVED else "labels",
        composite=config["screens"][TRAIN]["composite"],
        roles=channel_roles(TRAIN),
        shifted=[",".join(config["screens"][name]["composite"]) for name in TEST],
        settings=flags(
            pick(config["features"], "batch_size", "precision", "standardised") | SCALING
        ),
        probe=DIAGNOSTIC_PROBE,
        judged=judged_at(),
        folder=lambda wc, output: str(Path(output.files[0]).parent),
        group_by=GROUP_BY,
        code=code_digest("qc/fit_detector.py"),
    shell:
        '"$HCSQC" --log {log:q} qc/fit_detector.py --study {params.study:q} --screen {params.screen:q}'
        " --encoder {params.encoder:q} --encoders {input.encoders:q} {params.ranking}"
        " --labels {input.labels:q} --random-labels {input.random:q} {params.group_by}"
        " --trained-on {params.trained_on:q} --crops {input.crops:q} --scales {input.scales:q}"
        " --composite {params.composite:q} --channel-roles {params.roles:q} --shift-composites {params.shifted:q}"
        " {params.window_um} {params.settings} {params.probe} --judged-at {params.judged} --threads {threads}"
        " --output {params.folder:q} --record {output.record:q}"


rule package_detector:
    """Package the detector as a model of MLflow, which needs no study to score crops."""
    input:
        detector=rules.fit_detector.output.files,
        crops=labelled_crops(TRAIN, "parquet"),
    output:
        model=directory(f"{STUDY}/qc/model"),
        record=f"{STUDY}/runs/qc/model/run.json",
    log:
        f"{STUDY}/logs/qc/model.log",
    localrule: True
    conda:
        "../envs/torch.yaml"
    params:
        folder=lambda wc, input: str(Path(input.detector[0]).parent),
        composite=config["screens"][TRAIN]["composite"],
        roles=channel_roles(TRAIN),
        code=code_digest("qc/package_detector.py"),
    shell:
        '"$HCSQC" --log {log:q} qc/package_detector.py --detector {params.folder:q} --crops {input.crops:q}'
        " --composite {params.composite:q} --channel-roles {params.roles:q} --output {output.model:q} --record {output.record:q}"


rule score_plate:
    """Score every crop of a plate."""
    input:
        detector=DETECTOR_FILES,
        crops=f"{STUDY}/crops/{{screen}}/{{plate}}.parquet",
    output:
        scores=f"{STUDY}/qc/{{screen}}/scores/{{plate}}.parquet",
        features=f"{STUDY}/qc/{{screen}}/scores/{{plate}}.features.parquet",
        record=f"{STUDY}/runs/qc/{{screen}}/scores/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/qc/{{screen}}/scores/{{plate}}.log",
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        mem_mb=growing(4000),
        runtime=minutes(120),
    params:
        folder=lambda wc, input: str(Path(input.detector[0]).parent),
        composite=lambda wc: screen_entry(wc)["composite"],
        roles=lambda wc: channel_roles(wc.screen),
        nucleus=lambda wc: screen_entry(wc)["nucleus_channel"],
        diameter=lambda wc: nucleus_diameter_of_crops(wc.screen),
        window_um=flags({"window_um": config["crops"]["window_um"] or 0}),
        settings=flags(
            pick(config["features"], "batch_size", "precision")
            | pick(QC, "sample", "focus_edge")
            | SCALING
        ),
        code=code_digest("qc/score_plate.py"),
    shell:
        '"$HCSQC" --log {log:q} qc/score_plate.py --detector {params.folder:q} --crops {input.crops:q}'
        " --composite {params.composite:q} --channel-roles {params.roles:q} --nucleus-channel {params.nucleus:q}"
        " --nucleus-diameter-px {params.diameter} {params.window_um}"
        " {params.settings} --threads {threads}"
        " --output {output.scores:q} --features {output.features:q}"
        " --record {output.record:q}"


rule set_threshold:
    """Set a screen's threshold, with the promise that its labels support."""
    input:
        detector=DETECTOR_FILES,
        labels=screen_labels,
        # Of no other plates, so that one more moves no threshold.
        scores=scores_of_labels,
    output:
        threshold=f"{STUDY}/qc/{{screen}}/threshold.json",
        record=f"{STUDY}/runs/qc/{{screen}}/threshold/run.json",
    log:
        f"{STUDY}/logs/qc/{{screen}}/threshold.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        folder=lambda wc, input: str(Path(input.detector[0]).parent),
        study=config["study"]["name"],
        settings=flags(pick(QC, "good_cells_lost", "confidence")),
        group_by=GROUP_BY,
        code=code_digest("qc/set_threshold.py"),
    shell:
        '"$HCSQC" --log {log:q} qc/set_threshold.py --study {params.study:q} --screen {wildcards.screen:q} --detector {params.folder:q}'
        " --labels {input.labels:q} {params.group_by} --scores {input.scores:q} {params.settings}"
        " --output {output.threshold:q} --record {output.record:q}"


rule flag_plate:
    """Flag every nucleus found on a plate, its fields and wells, and the plate itself."""
    input:
        detector=DETECTOR_FILES,
        threshold=f"{STUDY}/qc/{{screen}}/threshold.json",
        scores=f"{STUDY}/qc/{{screen}}/scores/{{plate}}.parquet",
        nuclei=f"{STUDY}/crops/{{screen}}/{{plate}}.nuclei.parquet",
        summary=f"{STUDY}/crops/{{screen}}/{{plate}}.summary.parquet",
        fields=f"{STUDY}/screens/{{screen}}/{{plate}}.fields.parquet",
        scale=f"{STUDY}/screens/{{screen}}/{{plate}}.scale.parquet",
    output:
        tables=[f"{STUDY}/qc/{{screen}}/plates/{{plate}}/{name}" for name in PLATE_TABLES],
        record=f"{STUDY}/runs/qc/{{screen}}/plates/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/qc/{{screen}}/plates/{{plate}}.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=minutes(30),
    params:
        folder=lambda wc, output: str(Path(output.tables[0]).parent),
        detector=lambda wc, input: str(Path(input.detector[0]).parent),
        composite=lambda wc: screen_entry(wc)["composite"],
        settings=flags(
            pick(
                QC,
                "empty_share",
                "focus_sds",
                "focus_drop",
                "focus_edge",
                "saturated_share",
                "well_share",
                "well_sds",
                "well_majority",
                "confidence",
                "drift_features",
                "drift_scores",
                "drift_gain",
            )
        ),
        code=code_digest("qc/flag_plate.py"),
    shell:
        '"$HCSQC" --log {log:q} qc/flag_plate.py --screen {wildcards.screen:q} --detector {params.detector:q}'
        " --threshold {input.threshold:q} --scores {input.scores:q} --nuclei {input.nuclei:q}"
        " --summary {input.summary:q} --fields {input.fields:q} --scale {input.scale:q}"
        " --composite {params.composite:q} {params.settings}"
        " --output {params.folder:q} --record {output.record:q}"


rule flag_screen:
    """Join the flags of a screen's plates; look at its prevalence, compounds and trend."""
    input:
        detector=DETECTOR_FILES,
        threshold=f"{STUDY}/qc/{{screen}}/threshold.json",
        plates=lambda wc: plate_tables(wc.screen),
        summaries=lambda wc: crop_files(wc.screen, "summary.parquet"),
        dates=lambda wc: those_here(pick_given(screen_entry(wc), "dates").values()),
    output:
        cells=f"{STUDY}/qc/{{screen}}/cells.parquet",
        fields=f"{STUDY}/qc/{{screen}}/fields.csv",
        wells=f"{STUDY}/qc/{{screen}}/wells.csv",
        plates=f"{STUDY}/qc/{{screen}}/plates.csv",
        compounds=f"{STUDY}/qc/{{screen}}/compounds.csv",
        corrections=f"{STUDY}/qc/{{screen}}/corrections.csv",
        trend=f"{STUDY}/qc/{{screen}}/trend.csv",
        prevalence=f"{STUDY}/qc/{{screen}}/prevalence.json",
        methods=f"{STUDY}/qc/{{screen}}/prevalence.csv",
        record=f"{STUDY}/runs/qc/{{screen}}/flags/run.json",
    log:
        f"{STUDY}/logs/qc/{{screen}}/flags.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=minutes(60),
    params:
        study=config["study"]["name"],
        folder=lambda wc, output: str(Path(output.cells).parent),
        detector=lambda wc, input: str(Path(input.detector[0]).parent),
        names=lambda wc: screen_entry(wc)["plates"],
        dates=lambda wc: flags(pick_given(screen_entry(wc), "dates")),
        settings=flags(pick(QC, "confidence", "well_share", "trend_plates", "trend_sds")),
        code=code_digest("qc/flag_screen.py"),
    shell:
        '"$HCSQC" --log {log:q} qc/flag_screen.py --study {params.study:q} --screen {wildcards.screen:q}'
        " --detector {params.detector:q} --plates {params.names:q} --summaries {input.summaries:q}"
        " {params.dates} {params.settings}"
        " --output {params.folder:q} --record {output.record:q}"


rule write_label_page:
    """Choose crops of a screen to label next, and write the page to label them in the browser."""
    input:
        crops=lambda wc: crop_files(wc.screen, "parquet"),
        labels=screen_labels,
        # Without any detector crops are chosen at random.
        scores=lambda wc: plate_scores(wc.screen) if HAS_DETECTOR else [],
        features=lambda wc: sampled_features(wc.screen) if HAS_DETECTOR else [],
        fields=lambda wc: screen_fields(wc.screen),
    output:
        page=f"{STUDY}/qc/{{screen}}/label_page.html",
        record=f"{STUDY}/runs/qc/{{screen}}/label_page/run.json",
    log:
        f"{STUDY}/logs/qc/{{screen}}/label_page.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=minutes(30),
    params:
        images=page_images,
        window=source_window,
        composite=lambda wc: screen_entry(wc)["composite"],
        settings=flags(
            pick(QC, "good_cells_lost", "confidence") | pick(config["evaluation"], "group_by")
        ),
        counts=flags(
            {
                "random": QC["label_random"],
                "diverse": QC["label_diverse"] if HAS_DETECTOR else 0,
                "uncertain": QC["label_uncertain"] if HAS_DETECTOR else 0,
            }
        ),
        code=code_digest("qc/write_label_page.py"),
    shell:
        '"$HCSQC" --log {log:q} qc/write_label_page.py --screen {wildcards.screen:q} --crops {input.crops:q}'
        " --composite {params.composite:q} --labels {input.labels:q} --scores {input.scores:q} --features {input.features:q}"
        " --fields {input.fields:q} {params.images} --window-px {params.window} {params.counts}"
        " {params.settings} --seed 0"
        " --output {output.page:q} --record {output.record:q}"


rule find_suspicious_labels:
    """Rank a screen's labels by how far held-out models contradict them; write the page to check."""
    input:
        detector=DETECTOR_FILES,
        crops=lambda wc: labelled_crops(wc.screen, "parquet"),
        nuclei=lambda wc: labelled_crops(wc.screen, "nuclei.parquet"),
        summaries=lambda wc: labelled_crops(wc.screen, "summary.parquet"),
        labels=f"{STUDY}/labels/{{screen}}.parquet",
        random=f"{STUDY}/labels/{{screen}}.random.parquet",
        files=label_files,
        fields=lambda wc: screen_fields(wc.screen, labelled_plates(wc.screen)),
    output:
        page=f"{STUDY}/qc/{{screen}}/suspicious_labels/page.html",
        ranking=f"{STUDY}/qc/{{screen}}/suspicious_labels/ranking.csv",
        duplicates=f"{STUDY}/qc/{{screen}}/suspicious_labels/duplicates.csv",
        record=f"{STUDY}/runs/qc/{{screen}}/suspicious_labels/run.json",
    log:
        f"{STUDY}/logs/qc/{{screen}}/suspicious_labels.log",
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        mem_mb=growing(4000),
        runtime=minutes(60),
    params:
        folder=lambda wc, input: str(Path(input.detector[0]).parent),
        images=page_images,
        window=source_window,
        window_um=flags({"window_um": config["crops"]["window_um"] or 0}),
        composite=lambda wc: screen_entry(wc)["composite"],
        roles=lambda wc: channel_roles(wc.screen),
        match=config["labels"]["match_px"],
        settings=flags(pick(config["features"], "batch_size", "precision") | SCALING),
        probe=DIAGNOSTIC_PROBE,
        judged=judged_at(),
        group_by=GROUP_BY,
        code=code_digest("qc/find_suspicious_labels.py"),
    shell:
        '"$HCSQC" --log {log:q} qc/find_suspicious_labels.py --screen {wildcards.screen:q}'
        " --detector {params.folder:q} --crops {input.crops:q} --nuclei {input.nuclei:q}"
        " --summaries {input.summaries:q} --labels {input.labels:q} --random-labels {input.random:q} {params.group_by}"
        " --label-files {input.files:q} --match-px {params.match} --composite {params.composite:q}"
        " --channel-roles {params.roles:q}"
        " --fields {input.fields:q} {params.images} --window-px {params.window}"
        " {params.window_um} {params.settings} {params.probe} --judged-at {params.judged}"
        " --threads {threads}"
        " --output {output.page:q} --ranking {output.ranking:q} --duplicates {output.duplicates:q}"
        " --record {output.record:q}"


rule check_planted:
    """Set what was planted into a simulated screen beside what was found."""
    input:
        truth=lambda wc: [
            f"{STUDY}/simulated/{wc.screen}/{plate}.truth.parquet"
            for plate in screen_entry(wc)["plates"]
        ],
        cells=f"{STUDY}/qc/{{screen}}/cells.parquet",
        fields=f"{STUDY}/qc/{{screen}}/fields.csv",
        wells=f"{STUDY}/qc/{{screen}}/wells.csv",
        threshold=f"{STUDY}/qc/{{screen}}/threshold.json",
        prevalence=f"{STUDY}/qc/{{screen}}/prevalence.json",
    output:
        table=f"{STUDY}/qc/{{screen}}/planted.csv",
        record=f"{STUDY}/runs/qc/{{screen}}/planted/run.json",
    log:
        f"{STUDY}/logs/qc/{{screen}}/planted.log",
    wildcard_constraints:
        screen=one_of(SIMULATED),
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        folder=lambda wc, input: str(Path(input.threshold).parent),
        match=config["labels"]["match_px"],
        window=source_window,
        code=code_digest("qc/check_planted.py"),
    shell:
        '"$HCSQC" --log {log:q} qc/check_planted.py --truth {input.truth:q} --cells {input.cells:q}'
        " --fields {input.fields:q} --wells {input.wells:q} --threshold {params.folder:q} --match-px {params.match}"
        " --window-px {params.window}"
        " --output {output.table:q} --record {output.record:q}"


rule compare_published_flags:
    """Compare flags that others published for a screen's fields with those of quality control."""
    input:
        # One at a URL is no input: a dry run needs no network.
        published=published_tables,
        tables=rules.flag_screen.output[:-1],
        threshold=f"{STUDY}/qc/{{screen}}/threshold.json",
    output:
        table=f"{STUDY}/qc/{{screen}}/published_flags.csv",
        fields=f"{STUDY}/qc/{{screen}}/published_fields.csv",
        record=f"{STUDY}/runs/qc/{{screen}}/published_flags/run.json",
    log:
        f"{STUDY}/logs/qc/{{screen}}/published_flags.log",
    wildcard_constraints:
        screen=one_of(PUBLISHED),
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=by_plates(growing, 2000, 10),
        # At a URL a plate's table takes about 15 seconds.
        runtime=by_plates(minutes, 30, 1 / 3),
    params:
        folder=lambda wc, input: str(Path(input.threshold).parent),
        template=lambda wc: screen_entry(wc)["published_flags"]["table"],
        columns=published_columns,
        plates=lambda wc: screen_entry(wc)["plates"],
        settings=flags(pick(config["evaluation"], "replicates")),
        code=code_digest("qc/compare_published.py"),
    shell:
        '"$HCSQC" --log {log:q} qc/compare_published.py --table {params.template:q} --columns {params.columns:q}'
        " --plates {params.plates:q} --folder {params.folder:q} {params.settings}"
        " --output {output.table:q} --fields {output.fields:q} --record {output.record:q}"


rule filter_load_data:
    """A plate's LoadData table again, without its bad wells and fields."""
    input:
        table=load_data_input,
        fields=f"{STUDY}/qc/{{screen}}/plates/{{plate}}/fields.csv",
        wells=f"{STUDY}/qc/{{screen}}/plates/{{plate}}/wells.csv",
    output:
        table=f"{STUDY}/qc/{{screen}}/load_data/{{plate}}.csv",
        record=f"{STUDY}/runs/qc/{{screen}}/load_data/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/qc/{{screen}}/load_data/{{plate}}.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        table=load_data_table,
        channels=lambda wc: settings.channels(config, wc.screen),
        code=code_digest("qc/filter_load_data.py"),
    shell:
        '"$HCSQC" --log {log:q} qc/filter_load_data.py --table {params.table:q} --plate {wildcards.plate:q}'
        " --channels {params.channels:q} --fields {input.fields:q} --wells {input.wells:q}"
        " --output {output.table:q} --record {output.record:q}"


rule make_qc_report:
    """Write a screen's quality-control page; where it has several plates, an index of their pages."""
    input:
        detector=DETECTOR_FILES,
        tables=rules.flag_screen.output[:-1],
        threshold=f"{STUDY}/qc/{{screen}}/threshold.json",
        crops=lambda wc: crop_files(wc.screen, "parquet"),
        features=lambda wc: sampled_features(wc.screen),
        fields=lambda wc: screen_fields(wc.screen),
        labels=screen_labels,
        planted=lambda wc: (f"{STUDY}/qc/{wc.screen}/planted.csv" if wc.screen in SIMULATED else []),
        published=lambda wc: (
            [f"{STUDY}/qc/{wc.screen}/published_{what}.csv" for what in ("flags", "fields")]
            if wc.screen in PUBLISHED
            else []
        ),
        pages=lambda wc: plate_pages(wc.screen),
    output:
        page=f"{STUDY}/qc/{{screen}}/report.html",
        multiqc=[
            f"{STUDY}/qc/{{screen}}/plates_mqc.json",
            f"{STUDY}/qc/{{screen}}/artefacts_mqc.json",
        ],
        record=f"{STUDY}/runs/qc/{{screen}}/report/run.json",
    log:
        f"{STUDY}/logs/qc/{{screen}}/report.log",
    conda:
        "../envs/core.yaml"
    threads: 4
    resources:
        mem_mb=growing(8000),
        runtime=minutes(60),
    params:
        folder=lambda wc, input: str(Path(input.threshold).parent),
        images=page_images,
        detector=lambda wc, input: str(Path(input.detector[0]).parent),
        composite=lambda wc: screen_entry(wc)["composite"],
        limits=page_limits,
        known=lambda wc, input: flags(
            ({"truth": input.planted} if input.planted else {})
            | ({"labels": input.labels[0]} if input.labels else {})
            | ({"published": list(input.published)} if input.published else {})
        ),
        of=lambda wc, output: flags({"multiqc": output.multiqc}),
        code=code_digest("qc/make_qc_report.py"),
    shell:
        '"$HCSQC" --log {log:q} qc/make_qc_report.py --screen {wildcards.screen:q} --folder {params.folder:q}'
        " --crops {input.crops:q} --features {input.features:q} --composite {params.composite:q}"
        " --detector {params.detector:q}/detector.json {params.limits} {params.known} {params.of}"
        " --fields {input.fields:q} {params.images} --threads {threads}"
        " --output {output.page:q} --record {output.record:q}"


use rule make_qc_report as make_qc_plate_page with:
    input:
        detector=DETECTOR_FILES,
        # Nothing of the screen as a whole: the page of a plate stays when others follow.
        tables=rules.flag_plate.output.tables,
        threshold=f"{STUDY}/qc/{{screen}}/threshold.json",
        crops=f"{STUDY}/crops/{{screen}}/{{plate}}.parquet",
        features=f"{STUDY}/qc/{{screen}}/scores/{{plate}}.features.parquet",
        fields=lambda wc: plate_file("screens", wc.screen, wc.plate, "fields.parquet"),
        labels=screen_labels,
        planted=[],
        published=[],
    output:
        page=f"{STUDY}/qc/{{screen}}/report/{{plate}}.html",
        record=f"{STUDY}/runs/qc/{{screen}}/report_plate/{{plate}}/run.json",
    log:
        f"{STUDY}/logs/qc/{{screen}}/report/{{plate}}.log",
    params:
        of=lambda wc: flags({"plate": wc.plate}),


rule track_qc:
    """Mirror the records into the tracking store, those of quality control too."""
    input:
        records=[f"{STUDY}/runs/qc/{screen}/report/run.json" for screen in QC_SCREENS],
        model=[] if QC["detector"] else f"{STUDY}/qc/model",
        pages=[plate_pages(screen) for screen in QC_SCREENS],
        tables=[filtered_tables(screen) for screen in QC_SCREENS],
    output:
        receipt=f"{STUDY}/qc/mlflow.receipt.json",
    log:
        f"{STUDY}/logs/qc/track.log",
    localrule: True
    conda:
        "../envs/tracking.yaml"
    params:
        settings=TRACKING,
        code=code_digest("tracking/track_runs.py"),
    shell:
        '"$HCSQC" --log {log:q} tracking/track_runs.py {params.settings} --receipt {output.receipt:q}'
