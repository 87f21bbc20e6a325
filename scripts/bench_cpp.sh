#!/usr/bin/env bash
# Builds the C++ benchmarks and runs each; JSON lines are kept in build/bench.
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

run_step "configure (cpu, with benchmarks)" cmake --preset cpu -DMOELINK_BUILD_BENCH=ON
run_step "build (cpu, with benchmarks)" cmake --build --preset cpu --parallel "$num_jobs"
shopt -s nullglob
sources=(bench/*.cpp)
((${#sources[@]} > 0)) || fail "bench/ has no C++ benchmark"
mkdir -p build/bench
for source in "${sources[@]}"; do
  name="$(basename "$source" .cpp)"
  "build/cpu/bench/$name" --benchmark_out="build/bench/$name.json" --benchmark_out_format=json
done
if [[ -x build/cpu/bench/fabric/moelink_transport_bench ]]; then
  build/cpu/bench/fabric/moelink_transport_bench build/bench/transport.json
  build/cpu/bench/fabric/moelink_node_bench build/bench/nodes_cpu.json
fi
