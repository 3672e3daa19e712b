# Sourced by each `run`: installs packages into the folder's own work directory, once per change of its list.
set -euo pipefail
export NPM_CONFIG_FUND=false NPM_CONFIG_AUDIT=false NPM_CONFIG_UPDATE_NOTIFIER=false
export PIP_DISABLE_PIP_VERSION_CHECK=1
export PYTHONPATH="$INTEROP/common${PYTHONPATH:+:$PYTHONPATH}"
export NODE_PATH="$INTEROP/common:$INTEROP_WORK/node_modules"

# once NAME FILE COMMAND…: runs the command unless it did before with the same FILE.
once() {
    local stamp="$INTEROP_WORK/.$1.stamp" list="$2"
    shift 2
    if ! cmp -s "$list" "$stamp"; then
        "$@" >&2
        cp "$list" "$stamp"
    fi
}

# python_packages REQUIREMENTS: puts a Python with these packages first on PATH.
python_packages() {
    once venv "$1" install_venv "$1"
    export PATH="$INTEROP_WORK/venv/bin:$PATH"
}

install_venv() {
    rm -rf "$INTEROP_WORK/venv"
    python3 -m venv "$INTEROP_WORK/venv"
    "$INTEROP_WORK/venv/bin/pip" install --quiet --requirement "$1"
}

# node_packages PACKAGE_JSON: makes these packages known to `require`.
node_packages() {
    once node "$1" install_node "$1"
}

install_node() {
    cp "$1" "$INTEROP_WORK/package.json"
    npm install --prefix "$INTEROP_WORK" --no-package-lock --silent
}

# debian_packages COMMAND PACKAGE…: installs the packages unless the command is there.
debian_packages() {
    local command="$1"
    shift
    command -v "$command" > /dev/null && return
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    "${as_root[@]}" apt-get update --quiet >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "$@" >&2
}
