# Shared by the scripts in this folder: paths, pinned versions, the tools' environment, progress lines.
# Source it, do not run it.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

# --- Pinned versions -------------------------------------------------------------------------------------------------
# The npm packages' versions are in package.json, wasm-bindgen's is the one in Cargo.lock (the two must be equal),
# Schemathesis's and its dependencies' in scripts/fuzz-requirements.txt.

RUST_VERSION=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
WASM_TARGET=wasm32-unknown-unknown
WORKER_BUILD_VERSION=0.8.7
NEXTEST_VERSION=0.9.143
FUZZ_TOOLCHAIN=nightly-2026-05-20
CARGO_FUZZ_VERSION=0.13.2
SCHEMATHESIS_VERSION=$(sed -n 's/^schemathesis==//p' scripts/fuzz-requirements.txt)
WASM_BINDGEN_VERSION=$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"/\1/p;}' Cargo.lock 2>/dev/null || true)

# --- Paths and environment -------------------------------------------------------------------------------------------

TOOLS=$ROOT/.tools
STATE=$ROOT/.state
WORKER_BUILD=$TOOLS/worker-build-$WORKER_BUILD_VERSION/bin/worker-build
SCHEMATHESIS=$TOOLS/schemathesis-$SCHEMATHESIS_VERSION/run
CARGO_FUZZ=$TOOLS/cargo-fuzz-$CARGO_FUZZ_VERSION/bin/cargo-fuzz
WASM_BINDGEN=$TOOLS/wasm-bindgen-cli-$WASM_BINDGEN_VERSION/bin/wasm-bindgen

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
# The project's node (>= 22), wrangler, wasm-opt and esbuild before the machine's.
export PATH=$ROOT/node_modules/.bin:$TOOLS/cargo-nextest-$NEXTEST_VERSION/bin:$PATH
# Neither telemetry nor update checks; logs stay in the project.
export WRANGLER_SEND_METRICS=false WRANGLER_SEND_ERROR_REPORTS=false WRANGLER_HIDE_BANNER=true
export WRANGLER_LOG_PATH=$ROOT/.wrangler/logs
# What worker-build downloads stays in the project.
export XDG_CACHE_HOME=$TOOLS/cache

# --- Progress --------------------------------------------------------------------------------------------------------

STEP="" HINT=""

# step "2/6" "what is being done" ["what to do if it fails"]
step() {
    STEP="[$1] $2" HINT=${3:-}
    printf '\n%s (%ss)\n' "$STEP" "$SECONDS"
}

note() { printf '      %s\n' "$*"; }

# fail "what is wrong and what to do": ends the script.
fail() {
    trap - ERR
    printf '\nFAILED: %s\n' "$*" >&2
    exit 1
}

# A command that fails ends the script and says in which step, and what to do about it.
on_error() {
    local status=$?
    trap - ERR
    printf '\nFAILED: %s%s (exit status %s)\n' "$(basename "$0")" "${STEP:+, step $STEP}" "$status" >&2
    if [[ -n $HINT ]]; then printf '        %s\n' "$HINT" >&2; fi
    exit "$status"
}
set -o errtrace
trap on_error ERR

# usage TEXT: prints the comment at the head of the calling script.
usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p;}' "$0"; }

# hold NAME: waits until no other script of this project holds the lock NAME; held until the script ends.
hold() {
    mkdir -p "$TOOLS"
    command -v flock >/dev/null || return 0
    exec 9>"$TOOLS/$1.lock"
    if ! flock --nonblock 9; then
        note "waiting for another run of the project's scripts to finish ($1) …"
        flock 9
    fi
}

# Builds the native tools. Always both at once: another selection means other features, and cargo would start anew.
build_native_tools() { cargo build "$@" --profile native -p mock-provider -p gatewayctl; }
