#!/usr/bin/env bash
# All static checks. The limits and layer rules are in scripts/lint/, a small Python program.
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

run_step "lint: configure" cmake --preset cpu
run_step "lint: every header compiles alone" cmake --build --preset cpu --target header_checks \
  --parallel "$num_jobs"
run_step "lint: layers, limits and texts" env PYTHONPATH=scripts "$venv/bin/python" -m lint
run_step "lint: clang-format" bash -c "
  git ls-files -co --exclude-standard '*.hpp' '*.cpp' '*.cu' '*.cuh' |
    xargs -r '$venv/bin/clang-format' --dry-run -Werror"
run_step "lint: ruff check" "$venv/bin/ruff" check --quiet .
run_step "lint: ruff format" "$venv/bin/ruff" format --check .
run_step "lint: mypy" "$venv/bin/mypy"
