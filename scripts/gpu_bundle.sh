#!/usr/bin/env bash
# Gathers what scripts/gpu_check.sh needs in build/gpu_bundle, so that it can be carried to a machine
# that has GPUs but not the libraries that Moelink links: programs, and their shared libraries.
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

architectures="${1:-90a}"
run_step "configure (gpu)" cmake --preset cuda -B build/gpu -DMOELINK_BUILD_BENCH=ON \
  -DMOELINK_CHECK_HEADERS=OFF -DMOELINK_BUILD_EXAMPLES=OFF \
  "-DCMAKE_CUDA_ARCHITECTURES=$architectures"
run_step "build (gpu)" cmake --build build/gpu --parallel "$num_jobs" \
  --target moelink_gpu1_tests moelink_cuda_bench
bundle=build/gpu_bundle
mkdir -p "$bundle/lib"
for program in build/gpu/tests/moelink_gpu1_tests build/gpu/bench/gpu/moelink_cuda_bench; do
  strip -o "$bundle/$(basename "$program")" "$program"
  ldd "$program" | awk '/spdlog|fmt|hwy|sodium/ { print $3 }' | xargs -I{} cp -L {} "$bundle/lib/"
done
echo "$bundle: $(du -sh "$bundle" | cut -f1)"
