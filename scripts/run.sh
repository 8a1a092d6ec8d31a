#!/usr/bin/env bash
# Run a script of this folder: run.sh crops/crop_plate.py --flags. Rules start all commands so.
#   HCSQC_PYTHON       the Python to run it by
#   HCSQC_NETWORKS     networks of one's own that files of encoders may ask for: module:function
#   HCSQC_HUB_OFFLINE  0 lets it open connections to the model hub; one local rule does
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
# Files of other libraries too, and what jobs print, whatever the locale.
export PYTHONUTF8=1
export HF_HUB_OFFLINE="${HCSQC_HUB_OFFLINE:-1}"
exec "${HCSQC_PYTHON:-python}" "$here/$1" "${@:2}"
