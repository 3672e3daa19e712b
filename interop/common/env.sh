# Sourced by each `run`: installs packages into the folder's own work directory, once per change of its list.
set -euo pipefail
shopt -s inherit_errexit
export NPM_CONFIG_FUND=false NPM_CONFIG_AUDIT=false NPM_CONFIG_UPDATE_NOTIFIER=false
export CARGO_TARGET_DIR="$INTEROP_WORK/target"
export PIP_DISABLE_PIP_VERSION_CHECK=1
export PYTHONPATH="$INTEROP/common${PYTHONPATH:+:$PYTHONPATH}"
export NODE_PATH="$INTEROP/common:$INTEROP_WORK/node_modules"

# attempt COMMAND…: up to three times, each within five minutes: a registry may be slow or away for a moment.
attempt() {
    local left
    for left in 2 1 0; do
        timeout --kill-after 10 300 "$@" >&2 && return
        [ "$left" = 0 ] || { echo "trying again: $*" >&2; sleep 5; }
    done
    return 1
}

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
    attempt "$INTEROP_WORK/venv/bin/pip" install --quiet --requirement "$1"
}

# node_packages PACKAGE_JSON: makes these packages known to `require`.
node_packages() {
    once node "$1" install_node "$1"
}

install_node() {
    cp "$1" "$INTEROP_WORK/package.json"
    attempt npm install --prefix "$INTEROP_WORK" --no-package-lock --silent
}

# debian_packages COMMAND PACKAGE…: installs the packages unless the command is there.
debian_packages() {
    local command="$1"
    shift
    command -v "$command" > /dev/null && return
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    attempt "${as_root[@]}" apt-get update --quiet
    attempt "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "$@"
}

# python_source NAME VERSION: prints the directory with the unpacked source distribution, fresh at each call.
python_source() {
    local archives="$INTEROP_WORK/archives"
    ls "$archives"/*.tar.gz > /dev/null 2>&1 ||
        attempt pip download --quiet --no-deps --no-binary "$1" --dest "$archives" "$1==$2"
    unpack "$archives"/*.tar.gz
}

# debian_source PACKAGE VERSION: the same with the original archive of a Debian source package of `trixie`.
debian_source() {
    local archives="$INTEROP_WORK/archives" lists="$INTEROP_WORK/lists" site
    if ! ls "$archives"/*.orig.tar.* > /dev/null 2>&1; then
        mkdir -p "$archives" "$lists/partial"
        site="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/$' | head -n 1)"
        echo "deb-src $site trixie main" > "$INTEROP_WORK/sources.list"
        local apt=(apt-get -o Dir::Etc::SourceList="$INTEROP_WORK/sources.list" -o Dir::Etc::SourceParts=/dev/null
            -o Dir::State::Lists="$lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
            -o APT::Sandbox::User=root --quiet)
        attempt "${apt[@]}" update
        (cd "$archives" && attempt "${apt[@]}" source --download-only --tar-only "$1=$2")
    fi
    unpack "$archives"/*.orig.tar.*
}

# crate_source NAME VERSION: the same with a crate, through cargo's own cache; builds stay in the work directory.
crate_source() {
    local fetch="$INTEROP_WORK/fetch"
    mkdir -p "$fetch/src"
    touch "$fetch/src/lib.rs"
    printf '[package]\nname = "fetch"\nedition = "2021"\n[dependencies]\n%s = "=%s"\n[workspace]\n' "$1" "$2" > "$fetch/Cargo.toml"
    rm -rf "$INTEROP_WORK/source"
    attempt cargo fetch --quiet --manifest-path "$fetch/Cargo.toml"
    cargo metadata --quiet --format-version 1 --manifest-path "$fetch/Cargo.toml" |
        python3 -c 'import json, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == sys.argv[1]:
        print(package["manifest_path"].removesuffix("Cargo.toml"))' "$1" |
        xargs -I {} cp -r {} "$INTEROP_WORK/source"
    printf '\n[workspace]\n' >> "$INTEROP_WORK/source/Cargo.toml"
    echo "$INTEROP_WORK/source"
}

unpack() {
    rm -rf "$INTEROP_WORK/source"
    mkdir -p "$INTEROP_WORK/source"
    tar --extract --strip-components 1 --directory "$INTEROP_WORK/source" --file "$1"
    echo "$INTEROP_WORK/source"
}

# needs_source NAME: ends the suite here unless INTEROP_SOURCES has a copy of the repository NAME.
needs_source() {
    [ -e "${INTEROP_SOURCES:-}/$1" ] && return
    echo "skip $1: no package has its tests, and INTEROP_SOURCES has no $1"
    exit
}

# client_certificates DIRECTORY: the broker's authority, a client that it believes and one that it does not, by the names
# that RabbitMQ's clients give them.
client_certificates() {
    mkdir -p "$1"
    cp "$CERTIFICATES/ca.pem" "$1/ca_certificate.pem"
    local name as
    for name in guest: alike:_broken; do
        as="${name#*:}"
        cp "$CERTIFICATES/${name%:*}.pem" "$1/client_certificate$as.pem"
        cp "$CERTIFICATES/${name%:*}.key" "$1/client_key$as.pem"
    done
}

# verdict FORMAT REPORT: the results of a suite, known failures of RabbitMQ set apart.
verdict() {
    local known=()
    [ -e "$SUITE/known-failures.txt" ] && known=("$SUITE/known-failures.txt")
    python3 "$INTEROP/common/verdict.py" "$1" "$2" "${known[@]}"
}
SUITE="$PWD"
