#!/usr/bin/env bash
# solo-learn's metadata pins torch 1.9.1, and no environment file can say --no-deps for one package.
set -euo pipefail
pip install --no-deps solo-learn==1.0.2
