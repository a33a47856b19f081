#!/usr/bin/env bash
# Builds foretoken's native parts on a machine with a GPU, checks them there and measures them. Needs CMake, ninja, a C++
# compiler and nvcc; PyTorch for the comparison and compute-sanitizer are used where they are. Neither Node nor a network.
#
#   scripts/gpu-check.sh [--output FILE] [--build FOLDER] [--seconds 590] [--only PART,…] [--resume] [--dry-run] [--rehearse]
#
#   --output    the results, one JSON document, written anew after every part (default gpu-check.json)
#   --build     where to build (default build/gpu-check); what is there already is used
#   --seconds   time for everything; parts that do not fit any more are skipped and say so
#   --only      parts, by the beginnings of their names; what an earlier run found of the others stays
#   --resume    goes on where an earlier run ended: parts that passed are not run again
#   --dry-run   prints what would be run
#   --rehearse  tries the script without a GPU: everything on the CPU, benchmarks with a 64th of the work
#
# A part that fails does not stop the next ones. Tests of one kind have a process of their own, as an error of a GPU stays
# with the process. Exits with 0 when all parts passed, 1 when one failed, 3 without a GPU.
set -u
cd "$(dirname "$0")/.." || exit 1
root=$PWD

output=gpu-check.json build=build/gpu-check seconds=590 only='' resume=no dry=no rehearse=no
while [ $# -gt 0 ]; do
  case $1 in
    --output) output=$2; shift ;;
    --build) build=$2; shift ;;
    --seconds) seconds=$2; shift ;;
    --only) only=$2; shift ;;
    --resume) resume=yes ;;
    --dry-run) dry=yes ;;
    --rehearse) rehearse=yes ;;
    *) echo "gpu-check: unknown option $1; the beginning of $0 lists them" >&2; exit 2 ;;
  esac
  shift
done

export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
if [ $rehearse = no ] && [ $dry = no ]; then
  if ! command -v nvidia-smi > /dev/null || ! nvidia-smi -L > /dev/null 2>&1; then
    echo "gpu-check: no NVIDIA GPU answers here (nvidia-smi -L); nothing was run" >&2
    exit 3
  fi
  if ! command -v nvcc > /dev/null && ! ls .cuda/nvidia/*/bin/nvcc > /dev/null 2>&1; then
    echo "gpu-check: nvcc was not found on PATH, in CUDA_HOME or in .cuda; nothing was run" >&2
    exit 3
  fi
fi

if [ $dry = no ]; then
  mkdir -p "$build"
  build=$(cd "$build" && pwd)
fi
logs=$build/logs  # of every part NAME.log, NAME.results (lines of JSON) and NAME.part (how it ended)
if [ $dry = no ]; then
  if [ $resume = no ] && [ -z "$only" ]; then rm -rf "$logs"; fi
  mkdir -p "$logs"
fi
begin=$SECONDS
failed=0
library=$build/libforetoken_cuda.so
if [ $rehearse = yes ]; then library=''; fi
python=$(command -v python3 || true)

# PyTorch brings cuBLASLt along.
if [ -n "$python" ] && [ -z "${FORETOKEN_CUDA_LIBRARIES:-}" ]; then
  FORETOKEN_CUDA_LIBRARIES=$("$python" - 2> /dev/null <<'PYTHON'
import glob, os, site, sysconfig
roots = {sysconfig.get_paths()['purelib'], *site.getsitepackages()}
print(':'.join(sorted({os.path.dirname(f) for r in roots for f in glob.glob(r + '/nvidia/*/lib/libcublasLt.so*')})))
PYTHON
  ) && export FORETOKEN_CUDA_LIBRARIES
fi

# The text as a JSON string; what is not ASCII is left out, as cutting may have left halves of characters.
quoted() {
  printf '"%s"' "$(printf '%s' "$1" | LC_ALL=C tr -d '\000-\010\013-\037\177-\377' | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/\t/\\t/g' | sed -e ':a' -e 'N' -e '$!ba' -e 's/\n/\\n/g')"
}

fact() { "$@" 2> /dev/null | head -n 1; }
facts() {
  echo "  \"date\": $(quoted "$(date -u +%Y-%m-%dT%H:%MZ)"),"
  echo "  \"commit\": $(quoted "$(fact git rev-parse HEAD)"),"
  echo "  \"rehearsal\": $([ $rehearse = yes ] && echo true || echo false),"
  echo "  \"gpu\": $(quoted "$(fact nvidia-smi --query-gpu=name,memory.total,driver_version,power.limit --format=csv,noheader)"),"
  echo "  \"nvcc\": $(quoted "$(nvcc --version 2> /dev/null | grep release)"),"
  echo "  \"torch\": $(quoted "$([ -n "$python" ] && fact "$python" -c 'import torch; print(torch.__version__)')"),"
}

# Everything known by now; a whole document at any time, as this script may be ended from outside.
write_output() {
  {
    echo "{"
    cat "$logs/facts"
    echo "  \"seconds\": $((SECONDS - begin)),"
    echo "  \"parts\": ["
    while read -r name; do cat "$logs/$name.part"; done < "$logs/order" | sed -e 's/^/    /' -e '$!s/$/,/'
    echo "  ],"
    echo "  \"results\": ["
    while read -r name; do cat "$logs/$name.results" 2> /dev/null; done < "$logs/order" | sed -e 's/^/    /' -e '$!s/$/,/'
    echo "  ]"
    echo "}"
  } > "$logs/output" && cp "$logs/output" "$output.new" && mv "$output.new" "$output"
}

# part NAME LIMIT COMMAND…: runs a command for at most LIMIT seconds; lines of JSON that it prints become results.
part() {
  local name=$1 limit=$2 left=$((seconds - (SECONDS - begin))) status start=$SECONDS log=$logs/$1.log code
  shift 2
  if [ -n "$only" ]; then
    local wish wanted=no
    for wish in ${only//,/ }; do [[ $name == "$wish"* ]] && wanted=yes; done
    [ $wanted = yes ] || return 0
  fi
  if [ $dry = yes ]; then echo "$name (at most $limit s): $*"; return 0; fi
  if [ $resume = yes ] && grep -q '"status": "passed"' "$logs/$name.part" 2> /dev/null; then return 0; fi
  if [ $left -lt 10 ]; then
    failed=1
    echo "gpu-check: $name: skipped" >&2
    [ ! -f "$logs/$name.part" ] || return 0  # an earlier run says more
    status=skipped
    echo "no time was left" > "$log"
  else
    [ $limit -lt $left ] || limit=$left
    echo "gpu-check: $name" >&2
    timeout -k 5 "$limit" "$@" > "$log" 2>&1
    code=$?
    case $code in 0) status=passed ;; 124 | 137) status='out of time' ;; *) status=failed ;; esac
    if [ "$status" != passed ]; then
      failed=1
      echo "gpu-check: $name: $status" >&2
      tail -n 15 "$log" >&2
    fi
  fi
  grep '^{"\(part\|what\)": .*}$' "$log" | sed -e "s/^{/{\"source\": \"$name\", /" -e 's/: -\{0,1\}\(nan\|inf\|NaN\|Infinity\)\([,}]\)/: null\2/g' > "$logs/$name.results"
  echo "{\"name\": $(quoted "$name"), \"status\": $(quoted "$status"), \"seconds\": $((SECONDS - start)), \"end\": $(quoted "$(grep -v '^{' "$log" | tail -n 12 | cut -c 1-400)")}" > "$logs/$name.part"
  grep -q -x -- "$name" "$logs/order" 2> /dev/null || echo "$name" >> "$logs/order"
  write_output
}

# The last value of a line of results that has these words, for the next parts' ceilings.
measured() { grep "\"part\": \"$1\"" "$logs/operations.results" 2> /dev/null | sed -n 's/.*"value": \([0-9.e+]*\).*/\1/p' | head -n 1; }

if [ $rehearse = yes ]; then
  configure=(-DFORETOKEN_TESTS=ON -DFORETOKEN_BENCH=ON)
  targets=(foretoken_tests bench_gpu_operations bench_gpu_engine)
  where=(--device cpu --scale 64)
  small=qwen3-12m large=qwen3-12m
else
  configure=(-DFORETOKEN_TESTS=ON -DFORETOKEN_BENCH=ON -DFORETOKEN_CUDA=ON "-DFORETOKEN_OUTPUT=$build")
  targets=(foretoken_tests bench_gpu_operations bench_gpu_engine foretoken_cuda)
  where=(--device cuda --library "$library")
  small=qwen2.5-0.5b large=qwen2.5-1.5b
  export FORETOKEN_TEST_CUDA=$library  # native tests: this library's device instead of everything else
fi
tests=$build/tests/foretoken_tests
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | head -n 1)
if [ $dry = yes ]; then capability=9.0; fi
[ $dry = yes ] || facts > "$logs/facts"

# First whether it is right, then how fast it is; what takes long and says little comes last.
part build 300 bash -c "cmake -S '$root' -B '$build' -G Ninja ${configure[*]} && ninja -k 0 -C '$build' ${targets[*]}"
part tests-linear 60 "$tests" "linear: " "products: "
if [ $rehearse = no ]; then
  part tests-rows 30 "$tests" "memory: " "embedding: " "rows: " "swiglu: "
  part tests-norm 30 "$tests" "norm: " "rope: "
  part tests-attention 60 "$tests" "attention: "
  if [ "$capability" = 9.0 ]; then
    part tests-attention-wgmma 40 env FORETOKEN_CUDA_ATTENTION=wgmma "$tests" "attention: "
  fi
  part tests-logprob 30 "$tests" "logprob: "
  part tests-sample 40 "$tests" "sample: "
  part tests-step 30 "$tests" "adamw: " "clip_norm: " "sum_squares: " "average: "
  part tests-engine 60 "$tests" test_cuda_engine test_decode_ahead test_decode_graphs test_recordings test_device_models
fi
part operations 110 "$build/bench/gpu_operations" "${where[@]}"
engine=("${where[@]}")
if [ $dry = no ]; then
  copy=$(measured copy) product=$(measured ceiling)
  if [ -n "$copy" ]; then engine+=(--copy "$copy"); fi
  if [ -n "$product" ]; then engine+=(--product "$product"); fi
fi
part engine-small 90 "$build/bench/gpu_engine" "${engine[@]}" --shape $small
part engine-large 150 "$build/bench/gpu_engine" "${engine[@]}" --shape $large
# Node where it is given, with what set-up builds: the package's own self-test on the device.
if command -v node > /dev/null && [ -f dist/cli/main.js ] && [ -f build/Release/foretoken.node ]; then
  if [ $rehearse = yes ]; then part node 60 node dist/cli/main.js doctor --device cpu
  else part node 60 env "FORETOKEN_CUDA_LIBRARY=$library" node dist/cli/main.js doctor --device cuda; fi
fi
if [ $rehearse = no ]; then
  part engine-small-decode-direct 60 env FORETOKEN_CUDA_GRAPHS=0 "$build/bench/gpu_engine" "${engine[@]}" --shape $small --part decode
  if [ "$capability" = 9.0 ]; then
    part operations-wgmma 30 env FORETOKEN_CUDA_ATTENTION=wgmma "$build/bench/gpu_operations" "${where[@]}" --part attention
  fi
  # What was built elsewhere says nothing, and has CUTLASS if its maker had.
  if ! grep -q '^FORETOKEN_CUTLASS:PATH=.*-NOTFOUND' "$build/CMakeCache.txt" 2> /dev/null; then
    part tests-linear-cutlass 60 env FORETOKEN_CUDA_MATMUL=cutlass "$tests" "linear: " "products: "
    part operations-cutlass 40 env FORETOKEN_CUDA_MATMUL=cutlass "$build/bench/gpu_operations" "${where[@]}" --part product
  fi
  part tests-linear-plain 60 env FORETOKEN_CUDA_MATMUL=plain "$tests" "linear: " "products: "
  if [ -n "$python" ] && "$python" -c 'import torch, transformers' 2> /dev/null; then
    for shape in $small $large; do
      part "torch-$shape" 100 "$python" bench/peers/train.py --device cuda --shape "$shape" --dtype bfloat16 --sequences 16 --length 1024 --compile --repeats 3
    done
  fi
  if command -v compute-sanitizer > /dev/null; then
    part sanitizer-memory 60 compute-sanitizer --tool memcheck --error-exitcode 9 "$tests" "norm: " "rope: " "attention: a backend agrees"
    part sanitizer-race 60 compute-sanitizer --tool racecheck --error-exitcode 9 "$tests" "swiglu: " "norm: a backend agrees" "attention: a backend agrees"
  fi
  part operations-plain 40 env FORETOKEN_CUDA_MATMUL=plain "$build/bench/gpu_operations" "${where[@]}" --part product
fi
[ $dry = no ] || exit 0

echo "gpu-check: $((SECONDS - begin)) s, results in $output" >&2
exit $failed
