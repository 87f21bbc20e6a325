#!/usr/bin/env bash
# Runs all GPU tests and the GPU benchmark on whatever GPUs this machine has.
#
#   scripts/gpu_check.sh OUTPUT_FOLDER [TEST_PATTERN] [BENCH_OPTIONS...]
#
# Needs build/gpu_bundle (see gpu_bundle.sh), and for the Python tests torch and pytest. Every C++
# test is a process of its own. Tests whose ranks are processes, the Python tests among them, run
# under an MPS daemon of our own, without which processes take turns on a GPU.
# TEST_PATTERN: a regular expression for full names of C++ tests; "none" runs none. PYTHON_TESTS: in
# the environment, an expression for pytest's -k; "none" runs no Python test. BENCH=none in the
# environment leaves the benchmarks out; BENCH_LL: options of the low latency one, "none" leaves it
# out. SANITIZER=memcheck, racecheck, initcheck or synccheck in the environment runs the C++ tests
# under that tool of compute-sanitizer, which makes them many times slower: choose few with
# TEST_PATTERN, with PYTHON_TESTS=none and BENCH=none. MPS=none starts no daemon. NODES=none leaves
# out the buffer tests on two emulated nodes, which run with all tests or if TEST_PATTERN names
# BufferConformance.
# Leaves tests.txt, python.txt, bench.json and bench_ll.json in the folder and prints a short
# summary last.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
output="${1:?usage: gpu_check.sh OUTPUT_FOLDER [TEST_PATTERN] [BENCH_OPTIONS...]}"
pattern="${2:-.}"
bench_options=("${@:3}")
bundle=build/gpu_bundle
tests="$bundle/moelink_gpu1_tests"
mkdir -p "$output"
export LD_LIBRARY_PATH="$PWD/$bundle/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export CUDA_MODULE_LOADING=EAGER
seconds_per_test="${SECONDS_PER_TEST:-60}"
seconds_for_python="${SECONDS_FOR_PYTHON:-300}"
python_status=0
bench_status=0
bench_ll_status=0
results="$output/tests.txt"
sanitizer=()
if [[ -n "${SANITIZER:-}" ]]; then
  # Ranks that are forked processes are looked at too. An error of the tool fails the test.
  sanitizer=(compute-sanitizer --tool "$SANITIZER" --target-processes all --error-exitcode 86)
  seconds_per_test="${SECONDS_PER_TEST:-580}"
  export MOELINK_TEST_TIMEOUT_SECONDS="${MOELINK_TEST_TIMEOUT_SECONDS:-300}"
  export MOELINK_TEST_ROUNDS="${MOELINK_TEST_ROUNDS:-3}" MOELINK_TEST_SANITIZER=1
fi
: >"$results"

full_test_names() {
  "$tests" --gtest_list_tests | awk '/^[^ ].*\.$/ { suite = $1 } /^  / { print suite $1 }'
}

run_test() {
  local name="$1" log start status
  log="$(mktemp)"
  start="$(date +%s.%N)"
  timeout -s KILL "$seconds_per_test" "${sanitizer[@]}" "$tests" --gtest_filter="$name" >"$log" 2>&1
  status=$?
  awk -v n="$name" -v s="$status" -v a="$start" -v b="$(date +%s.%N)" \
    'BEGIN { printf "%s %6.1f s  %s\n", s == 0 ? "ok  " : "FAIL", b - a, n }' | tee -a "$results"
  if [[ -n "${SANITIZER:-}" ]]; then
    cp "$log" "$output/$SANITIZER-${name//\//_}.txt"
    grep -E '^=========' "$log" | cut -c1-200 | sort | uniq -c | sort -rn | head -20
  fi
  if ((status != 0)); then grep -vE '^\[|^Running|^$' "$log" | cut -c1-300 | head -12; fi
  rm -f "$log"
}

run_tests() {
  local kind="$1"
  while IFS= read -r name; do
    [[ "$name" =~ $pattern ]] || continue
    case "$name" in
      *Processes*) [[ "$kind" == processes ]] || continue ;;
      *) [[ "$kind" == threads ]] || continue ;;
    esac
    run_test "$name"
  done < <(full_test_names)
}

run_python_tests() {
  local summary
  python_summary="python: not run"
  if [[ "${PYTHON_TESTS:-}" == none ]]; then return 0; fi
  PYTHONPATH="$PWD/$bundle/site" PYTHONDONTWRITEBYTECODE=1 timeout -s KILL "$seconds_for_python" \
    python3 -m pytest tests/gpu_python -p no:cacheprovider -o addopts=-ra -v --maxfail=8 \
    ${PYTHON_TESTS:+-k "$PYTHON_TESTS"} >"$output/python.txt" 2>&1
  python_status=$?
  grep -E '^(E  |FAILED|ERROR)' "$output/python.txt" | cut -c1-300 | head -40
  summary="$(tail -n 1 "$output/python.txt")"
  python_summary="python: $(count_of passed "$summary") passed, $(count_of failed "$summary") failed"
  python_summary+=", $(count_of error "$summary") errors, exit code $python_status"
}

# count_of WORD SUMMARY: the number before a word of pytest's last line, or 0.
count_of() {
  grep -oE "[0-9]+ $1" <<<"$2" | grep -oE '^[0-9]+' || echo 0
}

# Ranks that are threads need a hardware queue for each of their streams.
CUDA_DEVICE_MAX_CONNECTIONS=32 run_tests threads
export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
CUDA_MPS_PIPE_DIRECTORY="$(mktemp -d)"
CUDA_MPS_LOG_DIRECTORY="$(mktemp -d)"
if [[ "${MPS:-}" != none ]]; then nvidia-cuda-mps-control -d; fi
run_tests processes
# Once more as two emulated nodes, between which a network lies: tensors pass through the host.
if [[ "${NODES:-}" != none && ("$pattern" == . || "$pattern" == *BufferConformance*) ]]; then
  echo "on two nodes, over libfabric:" | tee -a "$results"
  MOELINK_TEST_NODES=2 MOELINK_NETWORK=libfabric pattern=BufferConformance run_tests processes
fi
run_python_tests
if [[ "${BENCH:-}" != none && "${BENCH_LL:-}" != none ]]; then
  # shellcheck disable=SC2086 # options are separate words
  "$bundle/moelink_cuda_bench" --mode ll --output "$output/bench_ll.json" ${BENCH_LL:-}
  bench_ll_status=$?
fi
if [[ "${MPS:-}" != none ]]; then echo quit | nvidia-cuda-mps-control >/dev/null; fi
unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY

echo
if [[ "${BENCH:-}" != none ]]; then
  "$bundle/moelink_cuda_bench" --output "$output/bench.json" "${bench_options[@]}"
  bench_status=$?
fi
echo
num_failed="$(grep -c '^FAIL' "$results")"
echo "tests: $(grep -c '^ok' "$results") passed, $num_failed failed; benchmarks: exit codes $bench_status, $bench_ll_status"
grep '^FAIL' "$results"
echo "$python_summary"
((num_failed == 0 && bench_status == 0 && bench_ll_status == 0 && python_status == 0))
