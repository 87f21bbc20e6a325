#!/usr/bin/env bash
# Compiles what runs on a GPU: the protocol's headers as CUDA, and kernels. Needs nvcc, no GPU.
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

[[ -n "$(command -v nvcc)" || -x /usr/local/cuda/bin/nvcc ]] || fail "found no nvcc"
run_step "configure (cuda)" cmake --preset cuda
run_step "build (cuda)" cmake --build --preset cuda --parallel "$num_jobs" \
  --target moelink moelink_protocol_on_cuda
