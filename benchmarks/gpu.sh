#!/usr/bin/env bash
# What needs a GPU, in parts that each fit in nine minutes:
#
#   benchmarks/gpu.sh tests             tests on the device: kernels, trainings, loaders; compute-sanitizer; machine code
#   benchmarks/gpu.sh tune              the fastest configuration of each kernel on this device
#   benchmarks/gpu.sh kernels           kernels against torch.compile, a copy and others; kernels in a whole step
#   benchmarks/gpu.sh throughput        whole trainings against a person's loop, lightly and a ceiling
#   benchmarks/gpu.sh loaders           from JPEG files to batches
#   benchmarks/gpu.sh reproduce NAME    a published pretraining on CIFAR-10, and its evaluation
#
# A step that fails does not stop the next; the summary comes last. Steps that were done are not done again: the same
# command goes on where it was cut off. Each leaves what it has, also when its time is up.
#
#   OUT     folder for the results (default gpu-results): a log and a summary of each part, and what benchmarks keep
#   PYTHON  interpreter with torch, torchvision, triton, numba and pytest (default python3)
#   WHEELS  folder of wheels to use besides: timm's for training, simplejpeg's and DALI's for loading, those of
#           `tilespin` for reproducing, lightly's to be compared with
#   PHOTOS  folder of JPEGs to load (default: made up)
#   TOTAL   seconds for all steps of the part together (default 510)
#   AGAIN   1: do steps again that were done
#   CUDA_GRAPHS  off, auto or on, for reproduce (default auto)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-gpu-results} PYTHON=${PYTHON:-python3} TOTAL=${TOTAL:-510}
part=${1:-} published=${2:-}
usage="usage: benchmarks/gpu.sh tests | tune | kernels | throughput | loaders | reproduce NAME"
case $part in
tests | tune | kernels | throughput | loaders) (($# == 1)) || { echo "$usage" >&2; exit 2; } ;;
reproduce) (($# == 2)) || { echo "$usage" >&2; exit 2; } ;;
*) echo "$usage" >&2; exit 2 ;;
esac
export PYTHONUNBUFFERED=1
name=$part${published:+-$published}
mkdir -p "$OUT/done"
log=$OUT/$name.log
[[ ${AGAIN:-} == 1 ]] && rm -f "$OUT/done/$name."*
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
deadline=$((SECONDS + TOTAL)) failed=0 summary=() tables=()

note() { # name, seconds, what came of it
    summary+=("$(printf '%-14s %4ss  %s' "$1" "$2" "$3")")
}

# Runs a command for at most so many seconds, or what is left of the total, unless it was done before. Says `shown`
# lines of its end in the summary, none if 0.
step() { # name, seconds, shown, command...
    local step=$1 limit=$2 shown=$3 left=$((deadline - SECONDS)) began=$SECONDS start code said
    shift 3
    if [[ -e $OUT/done/$name.$step ]]; then
        note "$step" 0 "done before"
        return
    fi
    ((limit > left)) && limit=$left
    if ((limit < 1)); then
        failed=1
        note "$step" 0 "failed: no time left"
        return
    fi
    echo "== $step: $*" >>"$log"
    start=$(wc -c <"$log")
    timeout -k 20 "$limit" "$@" >>"$log" 2>&1
    code=$?
    said=$(tail -c "+$((start + 1))" "$log")
    if ((code == 0)); then
        note "$step" $((SECONDS - began)) ok
        touch "$OUT/done/$name.$step"
    elif grep -q "Device not supported" <<<"$said"; then
        note "$step" $((SECONDS - began)) "skipped: this machine does not let it see the device"
        return
    else
        failed=1
        # a run that was told to leave says so with 143
        ((code == 124 || code == 137 || code == 143)) && code="out of time after ${limit}s" || code="exit $code"
        note "$step" $((SECONDS - began)) "failed: $code"
        printf '\n== %s failed: %s\n%s\n' "$step" "$code" "$(tail -n 20 <<<"$said")"
    fi
    ((shown)) && [[ $code != exit* ]] && tables+=("== $step" "$(tail -n "$shown" <<<"$said")")
}

# Whether a package can be imported; if not, that is noted for the steps that need it.
have() { # package, steps...
    local package=$1 step
    shift
    timeout 60 "$PYTHON" -c "import $package" >/dev/null 2>&1 && return
    for step in "$@"; do note "$step" 0 "skipped: $package is not installed"; done
    return 1
}

run_tests() {
    step gpu-tests 200 1 "$PYTHON" -m pytest tests/kernels -k gpu -p no:cacheprovider
    for tool in memcheck racecheck; do
        if command -v compute-sanitizer >/dev/null; then
            # without torch's cache of memory, which would hide a read behind a tensor's end
            step $tool 70 1 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $tool --error-exitcode 1 \
                --target-processes application-only "$PYTHON" -m benchmarks.harness.examples
        else
            note $tool 0 "skipped: compute-sanitizer is not installed"
        fi
    done
    have timm trainings &&
        step trainings 240 1 "$PYTHON" -m pytest tests/ssl_core/test_gpu_training.py -p no:cacheprovider
    have simplejpeg loader-tests &&
        step loader-tests 60 1 "$PYTHON" -m pytest tests/ssl_core/test_gpu_loaders.py -p no:cacheprovider
    step machine-code 70 0 "$PYTHON" -m benchmarks.machine_code
    step other-tests 120 1 "$PYTHON" -m pytest tests/kernels -k "not gpu" -p no:cacheprovider
}

run_tune() {
    # the table goes to kernels/tuned/ when it has been looked at
    step tune 500 60 "$PYTHON" -m benchmarks.tune --seconds 420 --into "$OUT"
}

run_kernels() {
    # torch.compile takes some ten seconds for each kernel, layout and size, so the small sizes go without
    step kernels 200 20 "$PYTHON" -m benchmarks.kernels --seconds 28 --shapes 224x256 --into "$OUT"
    step kernels-small 60 35 "$PYTHON" -m benchmarks.kernels --seconds 12 --shapes 32x1024 96x256 \
        --peers torchvision_v2 --into "$OUT/small"
    have timm train train-small cuda-graphs || return
    step train 120 10 "$PYTHON" -m benchmarks.train --steps 12 --into "$OUT"
    step train-small 60 4 "$PYTHON" -m benchmarks.train --encoder nin --size 32 --batch 128 --tasks "four turns" \
        --into "$OUT"
    step cuda-graphs 100 12 "$PYTHON" -m benchmarks.cuda_graphs --into "$OUT"
}

run_throughput() {
    have timm throughput && have simplejpeg throughput || return
    # cases that were measured are kept, whether the step was cut off or not
    for size in 224 96 32; do
        step "throughput-$size" 400 60 "$PYTHON" -m benchmarks.throughput ${PHOTOS:+"$PHOTOS"} --sizes $size \
            --batch 256 --seconds 1 --into "$OUT"
    done
}

run_loaders() {
    have simplejpeg loader || return
    step loader 400 60 "$PYTHON" -m benchmarks.loader ${PHOTOS:+"$PHOTOS"} --sizes 96 224 --train-size 224 --rounds 3 \
        --batch 256 --cores "$(nproc)" --into "$OUT"
}

run_reproduce() {
    have timm pretrain evaluate && have tyro pretrain evaluate || return
    local where=(--storage "$OUT/runs" --name "$published" --wandb off) protocol=knn
    [[ $published == rotnet* ]] && protocol=nonlinear
    [[ $published == vicreg* ]] && protocol=linear
    step pretrain 490 3 "$PYTHON" -m jobs.cli pretrain "$published" "${where[@]}" --cuda-graphs "${CUDA_GRAPHS:-auto}"
    if [[ -e $OUT/done/$name.pretrain ]]; then
        step evaluate 490 30 "$PYTHON" -m jobs.cli evaluate "$OUT/runs/$published" --protocols $protocol \
            --num-labels 0 --wandb off
    else
        note evaluate 0 "waits for the pretraining: the same command continues it"
    fi
}

if [[ -n ${WHEELS:-} ]]; then
    timeout 60 "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl \
        >>"$log" 2>&1 || { failed=1; note wheels 0 "failed: see $log"; }
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
tables+=("$(timeout 60 "$PYTHON" -c "import torch; print(torch.cuda.get_device_name())" 2>>"$log" || echo "no GPU")")
"run_$part"

{
    echo
    echo "== summary"
    printf '%s\n' "${summary[@]}" "${tables[@]}"
} | tee "$OUT/$name-summary.txt"
exit $failed
