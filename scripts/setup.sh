#!/usr/bin/env bash
# Brings a Debian machine to the point where everything here builds: system packages, a virtual
# environment in .venv, the pinned Python packages. Does nothing where nothing is missing.
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

system_packages=(
  build-essential cmake ninja-build ccache pkg-config git
  libfmt-dev libspdlog-dev libhwy-dev libsodium-dev libfabric-dev
  libgtest-dev libgmock-dev libbenchmark-dev
  python3-dev python3-venv
  iproute2
)

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "missing system packages: ${missing[*]}; install them as root (no sudo found)"
  fi
}

install_system_packages() {
  local -a apt_get=(apt-get -qq -o DPkg::Lock::Timeout=300)
  as_root "${apt_get[@]}" update
  as_root env DEBIAN_FRONTEND=noninteractive "${apt_get[@]}" install -y --no-install-recommends \
    "${missing[@]}"
}

set_up_system() {
  local package
  missing=()
  if ! command -v dpkg-query >/dev/null; then
    echo "Not a Debian system: please install the equivalents of ${system_packages[*]}"
    return
  fi
  for package in "${system_packages[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
      missing+=("$package")
  done
  if ((${#missing[@]} > 0)); then
    as_root true  # asks for the password, if any, before the output is hidden
    run_step "install ${#missing[@]} system packages" install_system_packages
  fi
}

set_up_python() {
  local requirements=scripts/requirements.txt stamp="$venv/.requirements.sha256"
  if [[ ! -x "$venv/bin/python" ]]; then
    run_step "create .venv" "${PYTHON:-python3}" -m venv "$venv"
  fi
  if ! sha256sum --check --status "$stamp" 2>/dev/null; then
    run_step "install pinned Python packages" "$venv/bin/pip" install \
      --disable-pip-version-check -r "$requirements"
    sha256sum "$requirements" >"$stamp"
  fi
}

set_up_system
set_up_python
