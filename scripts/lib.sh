# Shared by the scripts; sourced, never run. Sets `root` and `venv`; `set_up` installs what is missing.
# shellcheck shell=bash

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P) || exit 70
venv=$root/.venv
stamp=$venv/.installed

# Progress goes to stderr: stdout belongs to what the script was asked for.
if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
say() { printf '%s== %s%s\n' "$bold" "$*" "$plain" >&2; }

# die CODE LINE...: exit codes are those of sysexits.h, as for `airssys` itself.
die() {
    local code=$1
    shift
    printf '%s\n' "$@" >&2
    exit "$code"
}

# One line that changes whenever what is installed must change: the lock, the project's metadata, the launcher, the place.
wanted_stamp() {
    printf '%s ' "$root"
    cat "$root/requirements.lock" "$root/pyproject.toml" "$root/scripts/airssys" | sha256sum
}

# $PYTHON when set, else the first Python >= 3.11 that can make virtual environments.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3; do
        if "$candidate" -I -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            "$candidate" -I -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    return 1
}

# install_packages NAME...: Debian packages, as root only; false when that isn't possible.
install_packages() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    say "Installing $* (apt-get)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 </dev/null && return 0
    apt-get update -qq >&2 </dev/null && apt-get install -y -qq --no-install-recommends "$@" >&2 </dev/null
}

has_libseccomp() { "$1" -I -c 'import ctypes; ctypes.CDLL("libseccomp.so.2")' 2>/dev/null; }

# Makes the virtual environment and installs the lock and the project into it, unless that was done already. With
# AIRSSYS_SETUP=skip what is there is used as it is (the tests run the scripts so, to leave their own environment alone).
set_up() {
    if [ "${AIRSSYS_SETUP:-}" = skip ] && [ -x "$venv/bin/python" ]; then
        return 0
    fi
    if [ -x "$venv/bin/python" ] && [ -r "$stamp" ] && [ "$(<"$stamp")" = "$(wanted_stamp)" ]; then
        return 0
    fi
    [ "$(uname -s)" = Linux ] || die 69 "airssys-wasm needs Linux: it confines with namespaces, Landlock and seccomp." \
        "On another system, use a Linux virtual machine."
    # One set-up at a time. A directory can be locked as it is, so no lock file is left behind.
    exec 9<"$root"
    if command -v flock >/dev/null; then flock 9; fi
    local wanted python started=$SECONDS
    wanted=$(wanted_stamp)
    if [ -x "$venv/bin/python" ] && [ -r "$stamp" ] && [ "$(<"$stamp")" = "$wanted" ]; then
        exec 9<&-
        return 0 # somebody else did it while we waited
    fi

    python=$(find_python) || { install_packages python3 python3-venv && python=$(find_python); } ||
        die 69 "No Python >= 3.11 with the venv module was found." \
            "Install one (Debian, Ubuntu: sudo apt-get install python3 python3-venv), or name it: PYTHON=/path/to/python3 $0"
    has_libseccomp "$python" || { install_packages libseccomp2 && has_libseccomp "$python"; } ||
        die 69 "The library libseccomp.so.2 is missing: no worker can be confined without it." \
            "Install it (Debian, Ubuntu: sudo apt-get install libseccomp2), then run this again."
    [ -w "$root" ] || die 73 "$root is not writable by $(id -un 2>/dev/null || id -u), and it is not set up yet." \
        "Run scripts/run once as its owner, or work in a copy."

    # PYTHONPATH and friends would leak somebody else's modules into the installation; pip's cache lies outside the checkout.
    unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_USER
    export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
    # The scripts inside a virtual environment hold its path, so one that was moved or copied is made anew.
    if ! grep -qxF "$root" "$venv/.made-for" 2>/dev/null || ! "$venv/bin/python" -I -c 'import pip' 2>/dev/null; then
        say "Making the virtual environment .venv with $python"
        "$python" -I -m venv --clear "$venv" </dev/null >&2 || die 70 "$python could not make $venv."
        printf '%s\n' "$root" >"$venv/.made-for"
    fi
    rm -f "$stamp"
    say "Installing the locked dependencies (requirements.lock, with hashes)"
    "$venv/bin/python" -I -m pip install -qq --require-hashes --only-binary=:all: -r "$root/requirements.lock" </dev/null >&2 ||
        die 69 "The dependencies could not be installed; pip's own words are above." \
            "Nothing else was changed; run this again when the package index can be reached."
    say "Installing airssys-wasm itself (editable)"
    # hatchling comes from the lock too, hence no isolated build environment, which would be filled without hashes.
    "$venv/bin/python" -I -m pip install -qq --no-deps --no-build-isolation -e "$root" </dev/null >&2 ||
        die 70 "The project itself could not be installed; pip's own words are above."
    printf '%s\n' "$wanted" >"$stamp"
    exec 9<&-
    say "Ready in $((SECONDS - started)) s"
}

# Tracked files, and those about to be; in an unpacked archive, which has no history, everything that isn't generated.
files() {
    if git rev-parse --git-dir >/dev/null 2>&1; then
        git ls-files -z --cached --others --exclude-standard -- "$@" | xargs -0r ls -d -- 2>/dev/null
    else
        find "${@:-.}" -type f -not -path './.*/*' -not -name '*.pyc' | sed 's|^\./||'
    fi
}

# seconds_since EPOCHREALTIME: with a fraction; LC_ALL since awk and bash must agree on the decimal point.
seconds_since() { LC_ALL=C awk -v from="${1/,/.}" -v to="${EPOCHREALTIME/,/.}" 'BEGIN { print to - from }'; }
