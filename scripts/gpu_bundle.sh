#!/usr/bin/env bash
# Gathers what scripts/gpu_check.sh needs in build/gpu_bundle, so that it can be carried to a machine
# that has GPUs but not the libraries that Moelink links: programs, their shared libraries, and in
# build/gpu_bundle/site the Python packages moelink, deep_ep and ml_dtypes for CPython 3.12.
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

architectures="${1:-90a}"
run_step "configure (gpu)" cmake --preset cuda -B build/gpu -DMOELINK_BUILD_BENCH=ON \
  -DMOELINK_CHECK_HEADERS=OFF -DMOELINK_BUILD_EXAMPLES=OFF \
  "-DCMAKE_CUDA_ARCHITECTURES=$architectures"
run_step "build (gpu)" cmake --build build/gpu --parallel "$num_jobs" \
  --target moelink_gpu1_tests moelink_cuda_bench

# The machine with GPUs has its own Python: GPU_PYTHON must be one of the same minor version.
gpu_python="${GPU_PYTHON:-$HOME/.pyenv/versions/3.12.1/bin/python}"
[[ -x "$gpu_python" ]] || fail "no Python at $gpu_python: set GPU_PYTHON to one of version 3.12"
gpu_venv=build/gpu_py_venv
if [[ ! -x "$gpu_venv/bin/python" ]]; then
  run_step "make a virtual environment (gpu)" "$gpu_python" -m venv "$gpu_venv"
  run_step "install nanobind (gpu)" "$gpu_venv/bin/pip" install --disable-pip-version-check \
    "$(grep -o 'nanobind==[0-9.]*' pyproject.toml)"
fi
gpu_packages="$gpu_venv/for_the_bundle"
if [[ ! -d "$gpu_packages/ml_dtypes" ]]; then
  run_step "install ml_dtypes (gpu)" "$gpu_venv/bin/pip" install --disable-pip-version-check \
    --no-deps --target "$gpu_packages" "$(grep -o 'ml_dtypes==[0-9.]*' scripts/requirements.txt)"
fi
run_step "configure (gpu, Python)" cmake -G Ninja -B build/gpu_py -DCMAKE_BUILD_TYPE=Release \
  -DMOELINK_BUILD_PYTHON=ON -DMOELINK_CUDA=ON -DMOELINK_BUILD_TESTS=OFF \
  -DMOELINK_BUILD_EXAMPLES=OFF -DMOELINK_CHECK_HEADERS=OFF \
  "-DCMAKE_CUDA_ARCHITECTURES=$architectures" "-DPython_EXECUTABLE=$PWD/$gpu_venv/bin/python"
run_step "build (gpu, Python)" cmake --build build/gpu_py --parallel "$num_jobs" \
  --target moelink_python

bundle=build/gpu_bundle
mkdir -p "$bundle/lib"
# add PROGRAM FOLDER: stripped, with its libraries.
add() {
  strip -o "$2/$(basename "$1")" "$1"
  ldd "$1" | awk '/spdlog|fmt|hwy|sodium/ { print $3 }' | xargs -I{} cp -L {} "$bundle/lib/"
}
for program in build/gpu/tests/moelink_gpu1_tests build/gpu/bench/gpu/moelink_cuda_bench; do
  add "$program" "$bundle"
done
rm -rf "$bundle/site"
mkdir -p "$bundle/site"
cp -r python/moelink python/deep_ep/src/* "$gpu_packages/ml_dtypes" "$bundle/site/"
find "$bundle/site" -name __pycache__ -o -name '*.egg-info' | xargs rm -rf
add build/gpu_py/python/_core.cpython-312-*.so "$bundle/site/moelink"
echo "$bundle: $(du -sh "$bundle" | cut -f1)"
