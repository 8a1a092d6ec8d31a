"""Plates made in the form in which the Cell Painting Gallery publishes three well-known sets."""

from collections.abc import Callable

import pandas as pd
import tifffile

from tests.start.test_new_study import pixels

UUID = "64FBEEF7-F77C-4892-86F5-72D0160D4FB2"
WELLS = ("A01", "A02", "B01", "B02")
BUCKET = "s3://cellpainting-gallery"


def _write(root, folder, names, number):
    """Write a field, `names` by what the channels show; the nuclei are of the first."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for channel, name in enumerate(names):
        tifffile.imwrite(root / folder / name, pixels(channel, number))


def _plate(root, project, source, batch, plate, row: Callable[[str, int, int], dict]):
    rows = [
        row(well, site, 2 * place + site) for place, well in enumerate(WELLS) for site in (1, 2)
    ]
    folder = root / project / source / "workspace/load_data_csv" / batch / plate
    folder.mkdir(parents=True)
    table = pd.DataFrame(rows)
    table.to_csv(folder / "load_data.csv", index=False)
    # Tables of the gallery that have illumination functions, too.
    table.assign(FileName_IllumDNA="i.npy").to_csv(folder / "load_data_with_illum.csv", index=False)


def bbbc022(root, plate="20585"):
    """Wells in another column, whole URLs, channels named after stains, sites that are wrong."""
    project = "cpg0030-gustafsdottir-cellpainting"
    folder = f"{project}/broad/images/BBBC022/images/BBBC022_v1_images_{plate}w1"
    stains = ("OrigHoechst", "OrigER", "OrigSyto", "OrigPh_golgi", "OrigMito")

    def row(well, site, number):
        names = [f"IXMtest_{well}_s{site}_w{channel}{UUID}.tif" for channel in range(1, 6)]
        _write(root, folder, names, number)
        urls = {
            f"URL_{stain}": f"{BUCKET}/{folder}/{name}"
            for stain, name in zip(stains, names, strict=True)
        }
        wrong = "IXMtest" if number == 1 else site
        return {
            "Metadata_Plate": plate,
            "Metadata_CPD_WELL_POSITION": well,
            "Metadata_Site": wrong,
        } | urls

    _plate(root, project, "broad", "BBBC022", plate, row)


def jump(root, plate="BR00117035", source="source_4"):
    """Paths and file names apart, and a bright field beside the five stains."""
    batch = "2021_04_26_Batch1"
    folder = f"cpg0016-jump/{source}/images/{batch}/images/{plate}__2021-Measurement1/Images"
    channels = ("OrigDNA", "OrigER", "OrigRNA", "OrigAGP", "OrigMito", "OrigBrightfield")

    def row(well, site, number):
        place = f"r{ord(well[0]) - 64:02d}c{well[1:]}f{site:02d}p01"
        names = [f"{place}-ch{channel}sk1fk1fl1.tiff" for channel in range(1, 7)]
        _write(root, folder, names, number)
        row = {"Metadata_Source": source, "Metadata_Plate": plate, "Metadata_Well": well}
        row |= {"Metadata_Site": site}
        for channel, name in zip(channels, names, strict=True):
            row |= {f"FileName_{channel}": name, f"PathName_{channel}": f"{BUCKET}/{folder}/"}
        return row

    _plate(root, "cpg0016-jump", source, batch, plate, row)


def cpg0012(root, plate="24277"):
    """Wells in lower case, paths of another machine, the file of Mito for AGP, and flags."""
    project = "cpg0012-wawer-bioactivecompoundprofiling"
    folder = f"{project}/broad/images/CDRP/images/{plate}"
    channels = ("OrigDNA", "OrigER", "OrigRNA", "OrigAGP", "OrigMito")

    def row(well, site, number):
        names = [f"cdp2bioactives_{well.lower()}_s{site}_w{w}{UUID}.tif" for w in range(1, 6)]
        _write(root, folder, names, number)
        names[3] = names[4]
        row = {"Metadata_Plate": plate, "Metadata_Well": well.lower(), "Metadata_Site": site}
        for channel, name in zip(channels, names, strict=True):
            row |= {f"FileName_{channel}": name}
            row |= {f"PathName_{channel}": f"/home/ubuntu/bucket/{folder}/"}
        return row

    _plate(root, project, "broad", "CDRP", plate, row)
    flags = root / project / "broad/workspace/backend/CDRP" / plate
    flags.mkdir(parents=True)
    (flags / f"{plate}.sqlite").write_bytes(b"as large as 8 GB")
