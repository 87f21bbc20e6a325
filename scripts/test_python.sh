#!/usr/bin/env bash
# Runs the Python tests, each folder on its own so that an empty one fails (pytest's status 5).
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

run_tests "Python tests: package" "$venv/bin/python" -m pytest tests/python
run_tests "Python tests: deep_ep" "$venv/bin/python" -m pytest tests/deep_ep
run_tests "Python tests: lint" "$venv/bin/python" -m pytest tests/lint
