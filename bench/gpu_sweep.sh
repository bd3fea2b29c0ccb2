#!/usr/bin/env bash
# The GPU sweep, from a fresh checkout, within 8 minutes: bash bench/gpu_sweep.sh FOLDER [--device cpu --small]
#
# It installs nothing. It needs a Python (PYTHON, default python3) with torch for CUDA, transformers, onnx, onnxscript,
# onnxruntime-gpu, soundfile, soxr and pyarrow; SITE names a folder of packages copied to a machine without an index.
# TensorRT is measured where it, or TensorRT for RTX, and cuda-bindings are installed too.
# It writes raw results to FOLDER/gpu_sweep.json after every measurement, and prints the tables last.
set -euo pipefail
out=${1:?usage: gpu_sweep.sh FOLDER [--device cuda|cpu] [--small]}
mkdir -p "$out"; out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${SITE:+:$SITE}${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if ! "$python" -c 'from importlib.metadata import version; version("ser-batch")' 2>/dev/null; then
  # A checkout that is not installed has no version, which graphs and tables name: give it one.
  metadata=$(mktemp -d); mkdir "$metadata/ser_batch-0+checkout.dist-info"
  printf 'Metadata-Version: 2.1\nName: ser-batch\nVersion: 0+checkout\n' >"$metadata/ser_batch-0+checkout.dist-info/METADATA"
  export PYTHONPATH="$PYTHONPATH:$metadata"
fi
# The clock is the script's own, since a caller that cuts it off would lose the tables.
exec timeout 475 "$python" -m bench.gpu_sweep "$out" "${@:2}"
