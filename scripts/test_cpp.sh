#!/usr/bin/env bash
# test_cpp.sh PRESET: builds the preset and runs the C++ test tiers. A tier without tests fails.
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

preset="${1:?usage: test_cpp.sh PRESET}"
tiers=(unit ranks procs examples)
if [[ "$preset" == cpu ]]; then
  tiers+=(fabric package)
fi

run_ctest=(ctest --preset "$preset" --no-tests=error --parallel "$num_jobs")
# The thread sanitizer of older compilers needs a memory layout without much randomness.
if [[ "$preset" == tsan ]] && setarch "$(uname -m)" -R true 2>/dev/null; then
  run_ctest=(setarch "$(uname -m)" -R "${run_ctest[@]}")
fi

# Tests that this machine cannot run, by reason: they pass for CTest, so nobody would know.
show_skipped() {
  sed -nE 's/^([0-9]+: )?(Skipped here: .*)/    \2/p' "$last_log" | sort | uniq -c
}

run_step "configure ($preset)" cmake --preset "$preset"
run_step "build ($preset)" cmake --build --preset "$preset" --parallel "$num_jobs"
for tier in "${tiers[@]}"; do
  verbosity=()
  if [[ "$tier" == fabric ]]; then
    verbosity=(--verbose)
  fi
  run_tests "C++ tests: $tier ($preset)" "${run_ctest[@]}" "${verbosity[@]}" -L "^${tier}\$"
  show_skipped
done
