#!/usr/bin/env bash
# On a machine with a GPU, torch, triton, numba and pytest; needs neither Ray nor W&B. Leaves everything in $OUT
# (default: gpu-results): the kernels' tests on the device, the machine-code table, the kernel benchmark.
set -uo pipefail
cd "$(dirname "$0")/.."
export OUT=${OUT:-gpu-results} PYTHONUNBUFFERED=1
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
failed=0
step() {  # name, seconds, command...
    local name=$1 limit=$2
    shift 2
    timeout "$limit" "$@" >"$OUT/$name.log" 2>&1 || { failed=1; echo "FAILED: $name (see $OUT/$name.log)"; }
}
step tests 240 "$PYTHON" -m pytest tests/kernels -p no:cacheprovider
step machine-code 120 "$PYTHON" -m benchmarks.machine_code
before=$(date +%s)
step kernels 150 "$PYTHON" -m benchmarks.kernels
find benchmarks/results -name '*.json' -newermt "@$((before - 1))" -exec cp {} "$OUT/" \;
tail -n 3 "$OUT/tests.log"
cat "$OUT/kernels.log"
exit $failed
