#!/usr/bin/env bash
# Builds moelink._core and installs the package into .venv in editable mode: changes of Python files
# take effect at once; this runs again when C++ sources change or Python files come or go.
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

# What the installed package was made from. Sorted, so that it is the same on every machine.
fingerprint() {
  {
    find CMakeLists.txt pyproject.toml cmake include src python/CMakeLists.txt python/bindings \
      python/deep_ep/pyproject.toml -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    find python/moelink python/deep_ep -type f -not -name '*.pyc' | LC_ALL=C sort
    "$venv/bin/python" -VV
  } | sha256sum
}

stamp="$venv/.package.sha256"
current="$(fingerprint)"
if [[ "$(cat "$stamp" 2>/dev/null)" != "$current" ]]; then
  rm -f "$stamp"
  run_step "build and install the Python package" "$venv/bin/pip" install \
    --disable-pip-version-check --no-build-isolation --no-deps --editable .
  run_step "install the Python package deep_ep" "$venv/bin/pip" install \
    --disable-pip-version-check --no-build-isolation --no-deps --editable python/deep_ep
  echo "$current" >"$stamp"
fi
