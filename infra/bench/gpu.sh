#!/bin/sh
# Every GPU figure of docs/PERFORMANCE.md in one go: about ten minutes on one H100.
# Needs one GPU, torch with CUDA, what `pip install .` brings, and 40 GB of disk; no network.
#
#     sh infra/bench/gpu.sh [SHAPE [DEVICE]]
#
# SHAPE is idefics2-8b and DEVICE cuda; `tiny cpu` tries the script itself without a GPU. Results,
# one JSON object a line, go to $OUT, build/gpu if it is not set.
set -eu
shape=${1:-idefics2-8b}
device=${2:-cuda}
out=${OUT:-build/gpu}
samples=${SAMPLES:-64}
cd "$(dirname "$0")/../.."
mkdir -p "$out"
"${PYTHON:-python3}" -c 'import torch, transformers; print(torch.__version__, transformers.__version__)' |
	tee "$out/versions.txt"
for splitting in no-splitting splitting; do
	echo "with --$splitting"
	"${PYTHON:-python3}" -m pipeline.cli bench --random-weights "$shape" --device "$device" \
		"--$splitting" --samples "$samples" --rounds 1 --json >"$out/$splitting.json"
done
echo "with steps recorded as CUDA graphs, which is off by default"
"${PYTHON:-python3}" -m pipeline.cli bench --random-weights "$shape" --device "$device" \
	--no-splitting --fixed-steps --samples "$samples" --rounds 1 --json >"$out/fixed-steps.json"
echo "do attention kernels agree"
"${PYTHON:-python3}" infra/bench/attention.py --shape "$shape" --device "$device" |
	tee "$out/attention.txt"
"${PYTHON:-python3}" - "$out" <<'PYTHON'
import json
import sys
from pathlib import Path

for path in sorted(Path(sys.argv[1]).glob("*.json")):
    report = json.loads(path.read_text().splitlines()[-1])
    rates = report["seconds_a_page"]
    found = {way: round(1 / seconds, 2) for way, seconds in rates.items() if seconds}
    print(path.stem, found, "pages/s")
PYTHON
