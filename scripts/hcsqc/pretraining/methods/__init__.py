"""Self-supervised methods: each file has its `Settings` and its `Method`, and one entry here."""

from hcsqc.pretraining.methods import (
    barlow_twins,
    byol,
    deepcluster_v2,
    dino,
    moco_v2_plus,
    simclr,
    simsiam,
    swav,
    vicreg,
)

METHODS = {
    "simclr": simclr,
    "barlow_twins": barlow_twins,
    "vicreg": vicreg,
    "deepcluster_v2": deepcluster_v2,
    "swav": swav,
    "byol": byol,
    "moco_v2_plus": moco_v2_plus,
    "simsiam": simsiam,
    "dino": dino,
}
