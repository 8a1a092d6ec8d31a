"""Self-supervised methods: each file has its `Settings` and its `Method`, and one entry here."""

from hcsqc.pretraining.methods import barlow_twins, deepcluster_v2, simclr, swav, vicreg

METHODS = {
    "simclr": simclr,
    "barlow_twins": barlow_twins,
    "vicreg": vicreg,
    "deepcluster_v2": deepcluster_v2,
    "swav": swav,
}
