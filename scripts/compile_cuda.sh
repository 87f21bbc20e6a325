#!/usr/bin/env bash
# Compiles what runs on a GPU, for all architectures: headers alone, those of the protocol also as
# CUDA, the library with its kernels, and the GPU tests. Then reports what the kernels use. Needs
# nvcc, no GPU.
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

[[ -n "$(command -v nvcc)" || -x /usr/local/cuda/bin/nvcc ]] || fail "found no nvcc"
# ptxas tells what kernels use; their PTX, which tells their launch bounds, stays readable.
run_step "configure (cuda)" cmake --preset cuda \
  -DCMAKE_CUDA_FLAGS="-Xptxas=-v --compress-mode=none"
# Only a compiler that runs says anything: ccache repeats what it has said.
[[ ! -d build/cuda/src ]] || find build/cuda/src -name '*.cu.o' -delete
run_step "build (cuda)" cmake --build --preset cuda --parallel "$num_jobs" \
  --target moelink moelink_internal_headers moelink_protocol_on_cuda moelink_gpu1_tests
run_step "registers and local memory of kernels" env PYTHONPATH=scripts "$venv/bin/python" \
  -m lint.kernel_report build/cuda "$last_log"
cat "$last_log"
