# What a person types. Every target sets up what it needs; a second run is quick.
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup package demo test test-cpp test-python lint format tidy asan tsan cuda bench clean

PYTHON_BIN := .venv/bin/python
CPP_FILES = git ls-files -co --exclude-standard '*.hpp' '*.cpp' '*.cu' '*.cuh'

help:  ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## Install system packages, .venv and pinned Python packages where missing
	@scripts/setup.sh

package: setup  ## Build the Python package and install it into .venv
	@scripts/install_package.sh

demo: package  ## Train a small MoE language model on 4 ranks and check it
	@.venv/bin/moelink demo

test: setup  ## Build and run all C++ and Python tests, then lint
	@scripts/test_cpp.sh cpu
	@scripts/install_package.sh
	@scripts/test_python.sh
	@$(MAKE) lint

test-cpp: setup  ## Only the C++ tests
	@scripts/test_cpp.sh cpu

test-python: package  ## Only the Python tests
	@scripts/test_python.sh

lint: setup  ## Layers, sizes, formats, types; every header compiles alone
	@scripts/lint.sh

format: setup  ## Rewrite the sources in the agreed format
	@$(CPP_FILES) | xargs -r .venv/bin/clang-format -i
	@.venv/bin/ruff check --quiet --fix-only .
	@.venv/bin/ruff format --quiet .

tidy: setup  ## clang-tidy over the library (slow, optional; needs clang-tidy)
	@cmake --preset cpu >/dev/null
	@git ls-files -co --exclude-standard 'src/*.cpp' | xargs -r -n 1 -P "$$(nproc)" clang-tidy --quiet -p build/cpu

asan: setup  ## C++ tests under the address and undefined-behaviour sanitizers
	@scripts/test_cpp.sh asan

tsan: setup  ## C++ tests under the thread sanitizer
	@scripts/test_cpp.sh tsan

cuda: setup  ## Compile what runs on a GPU, check what kernels use (needs nvcc, no GPU)
	@scripts/compile_cuda.sh

bench: setup  ## Build and run the C++ benchmarks
	@scripts/bench_cpp.sh

clean:  ## Remove build results; .venv stays
	rm -rf build
