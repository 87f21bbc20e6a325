# Sourced by the other scripts: runs steps quietly, shows how long they took, stops at a failure.
# shellcheck shell=bash
set -euo pipefail

project_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$project_root"
venv="$project_root/.venv"
log_folder="$project_root/build/logs"
num_jobs="$(nproc)"
export CCACHE_BASEDIR="$project_root" CCACHE_NOHASHDIR=1  # clones in other folders share results

fail() {
  echo "error: $*" >&2
  exit 1
}

# run_step TITLE COMMAND...: output goes to a log file, which is shown when the command fails.
run_step() {
  local title="$1" start="$SECONDS" status=0 process
  shift
  mkdir -p "$log_folder"
  last_log="$log_folder/$(tr -cs 'a-zA-Z0-9\n' '_' <<<"$title").log"
  set -m  # gives the command a process group of its own, so that all of it can be ended
  "$@" >"$last_log" 2>&1 </dev/null &
  process=$!
  set +m
  trap 'kill -- -"$process" 2>/dev/null; exit 130' INT TERM HUP
  show_progress "$title" "$last_log" "$process"
  wait "$process" || status=$?
  trap - INT TERM HUP
  printf '==> %-45s ' "$title"
  if ((status != 0)); then
    printf 'FAILED after %d s\n' "$((SECONDS - start))"
    # Ninja's and CTest's lines about what went well would push the reason off the screen.
    grep -vE '^\[[0-9]+/[0-9]+\] |^ *[0-9]+/[0-9]+ Test .* Passed |^ +Start +[0-9]+: ' "$last_log" |
      tail -n 200 >&2 || true
    fail "step '$title' failed with status $status; whole output: ${last_log#"$project_root"/}"
  fi
  printf 'done in %d s\n' "$((SECONDS - start))"
}

# On a terminal: the title and the newest line of the log, until the process ends.
show_progress() {
  [[ -t 1 ]] || return 0
  local width line
  width="$(tput cols 2>/dev/null || echo 80)"
  while kill -0 "$3" 2>/dev/null; do
    line="==> $1: $(tail -n 1 "$2" | tr -cd '[:print:]')"
    printf '\r\033[K%s' "${line:0:width-1}"
    sleep 0.5
  done
  printf '\r\033[K'
}

# run_tests TITLE COMMAND...: as run_step, and shows the closing lines of a test runner.
run_tests() {
  run_step "$@"
  grep -E '^[0-9]+% tests passed|^=+ .* in [0-9.]+s|^[0-9]+ passed' "$last_log" | sed 's/^/    /' || true
}
