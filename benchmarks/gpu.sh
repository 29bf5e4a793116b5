#!/usr/bin/env bash
# Everything that needs a GPU, on a machine that has torch, torchvision, triton, numba and pytest, in less
# than nine minutes: the kernels' tests on the device, their benchmark, compute-sanitizer, whole training steps, the
# loaders' tests and benchmark, the machine-code table and the other kernel tests. A step that fails does not stop the next; the summary comes last.
#
#   OUT     folder for the results (default gpu-results): log.txt, summary.txt and what the benchmarks keep
#   PYTHON  interpreter (default python3)
#   WHEELS  folder of wheels to use besides what is installed: timm's for training, simplejpeg's and DALI's for loading
#   PHOTOS  folder of JPEGs to load (default: made up)
#   TOTAL   seconds for all steps together (default 510)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-gpu-results} PYTHON=${PYTHON:-python3} TOTAL=${TOTAL:-510}
export PYTHONUNBUFFERED=1
mkdir -p "$OUT"
log=$OUT/log.txt
: >"$log"
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
deadline=$((SECONDS + TOTAL)) failed=0 summary=() tables=()

note() {  # name, seconds, what came of it
    summary+=("$(printf '%-14s %4ss  %s' "$1" "$2" "$3")")
}

# Runs a command for at most so many seconds, or what is left of the total. Says `shown` lines of its end in the
# summary, none if 0.
step() {  # name, seconds, shown, command...
    local name=$1 limit=$2 shown=$3 left=$((deadline - SECONDS)) began=$SECONDS start code
    shift 3
    ((limit > left)) && limit=$left
    if ((limit < 1)); then
        failed=1
        note "$name" 0 "failed: no time left"
        return
    fi
    echo "== $name: $*" >>"$log"
    start=$(wc -c <"$log")
    timeout -k 5 "$limit" "$@" >>"$log" 2>&1
    code=$?
    local said
    said=$(tail -c "+$((start + 1))" "$log")
    if ((code == 0)); then
        note "$name" $((SECONDS - began)) ok
    elif grep -q "Device not supported" <<<"$said"; then
        note "$name" $((SECONDS - began)) "skipped: this machine does not let it see the device"
        return
    else
        failed=1
        ((code == 124 || code == 137)) && code="out of time after ${limit}s" || code="exit $code"
        note "$name" $((SECONDS - began)) "failed: $code"
        printf '\n== %s failed: %s\n%s\n' "$name" "$code" "$(tail -n 20 <<<"$said")"
    fi
    ((shown)) && [[ $code != exit* ]] && tables+=("== $name" "$(tail -n "$shown" <<<"$said")")
}

if [[ -n ${WHEELS:-} ]]; then
    step wheels 40 0 "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
step device 60 1 "$PYTHON" -c "import torch; print(torch.cuda.get_device_name())"
timeout 30 "$PYTHON" -c "import timm" >/dev/null 2>&1 && timm=1 || timm=0
step gpu-tests 200 1 "$PYTHON" -m pytest tests/kernels -k gpu -p no:cacheprovider
# torch.compile takes some ten seconds for each kernel, layout and size, so the small sizes go without
step kernels 170 20 "$PYTHON" -m benchmarks.kernels --seconds 28 --shapes 224x256 --into "$OUT"
step kernels-small 60 35 "$PYTHON" -m benchmarks.kernels --seconds 12 --shapes 32x1024 96x256 \
    --peers torchvision_v2 --into "$OUT/small"
for tool in memcheck racecheck; do
    if command -v compute-sanitizer >/dev/null; then
        # without torch's cache of memory, which would hide a read behind a tensor's end
        step $tool 70 1 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $tool --error-exitcode 1 \
            --target-processes application-only "$PYTHON" -m benchmarks.harness.examples
    else
        note $tool 0 "skipped: compute-sanitizer is not installed"
    fi
done
if ((timm)); then
    step train 120 10 "$PYTHON" -m benchmarks.train --steps 12 --into "$OUT"
    step train-small 40 4 "$PYTHON" -m benchmarks.train --encoder nin --size 32 --batch 128 --tasks "four turns" --into "$OUT"
    step training-tests 160 1 "$PYTHON" -m pytest tests/ssl_core/test_gpu_training.py -p no:cacheprovider
    step cuda-graphs 60 12 "$PYTHON" -m benchmarks.cuda_graphs --into "$OUT"
else
    for name in train train-small training-tests cuda-graphs; do note $name 0 "skipped: timm is not installed"; done
fi
if timeout 30 "$PYTHON" -c "import simplejpeg" >/dev/null 2>&1; then
    step loader-tests 60 1 "$PYTHON" -m pytest tests/ssl_core/test_gpu_loaders.py -p no:cacheprovider
    step loader 120 40 "$PYTHON" -m benchmarks.loader ${PHOTOS:+"$PHOTOS"} --sizes 224 --train-size 224 --rounds 3 \
        --batch 256 --cores "$(nproc)" --into "$OUT"
else
    note loader 0 "skipped: simplejpeg is not installed"
fi
step machine-code 70 0 "$PYTHON" -m benchmarks.machine_code
step other-tests 120 1 "$PYTHON" -m pytest tests/kernels -k "not gpu" -p no:cacheprovider

{
    echo
    echo "== summary"
    printf '%s\n' "${summary[@]}" "${tables[@]}"
} | tee "$OUT/summary.txt"
exit $failed
