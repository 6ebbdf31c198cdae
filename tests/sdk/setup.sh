#!/bin/sh
# Makes what the SDK stories run on, below tests/.cache/sdk (or $TACIT_SDK_CACHE):
# three Python environments, two node_modules trees and a Node that is new enough.
# Idempotent: a second run only compares a stamp. Everything is pinned; packages
# come from PyPI and npm through pip and npm, with whatever mirror these have configured.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${TACIT_SDK_CACHE:-$here/../.cache/sdk}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

say() { printf 'sdk set-up: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Prints the digest of the pins that a part is made from; a part is fresh when its stamp says the same.
digest() { cat "$@" | sha256sum | cut -d' ' -f1; }
fresh() { [ -f "$1/.stamp" ] && [ "$(cat "$1/.stamp")" = "$2" ]; }

need_venv() {
    python3 -c 'import ensurepip, venv' 2>/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing python3-venv with apt-get"
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv >&2 ||
            { apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv >&2; }
    else
        die "python3 with its venv module is missing: run 'apt-get install python3-venv' as root, then this again"
    fi
}

# A virtual environment from a pin file: venv NAME PINS. Wheels only: a bare machine has no compiler for sources.
venv() {
    dir=$cache/$1 want=$(digest "$2")
    fresh "$dir" "$want" && return
    say "making $1"
    rm -rf "$dir"
    python3 -m venv "$dir"
    "$dir/bin/pip" install --quiet --only-binary :all: --disable-pip-version-check --no-input --requirement "$2" >&2 ||
        die "pip could not install the pins of $2: is PyPI (or your mirror of it) reachable?"
    echo "$want" >"$dir/.stamp"
}

# A node_modules tree from a committed lock: modules GENERATION
modules() {
    from=$here/node/$1 dir=$cache/node-$1
    # Node looks packages up beside the script's own path, so the scripts' folder is linked into each
    # tree (and run with --preserve-symlinks-main). Every time: the cache may have come from another checkout.
    [ ! -d "$dir" ] || ln -sfn "$here/node" "$dir/stories"
    want=$(digest "$here/node/$1/package.json" "$here/node/$1/package-lock.json")
    fresh "$dir" "$want" && return
    say "making node-$1"
    rm -rf "$dir"
    mkdir -p "$dir"
    cp "$from/package.json" "$from/package-lock.json" "$dir/"
    # No install scripts: the stories need none, and foreign code at set-up is one risk fewer.
    (cd "$dir" && PATH="$cache/node-runtime/bin:$PATH" npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2) ||
        die "npm could not install $from/package-lock.json: is npm's registry (or your mirror of it) reachable?"
    ln -s "$here/node" "$dir/stories"
    echo "$want" >"$dir/.stamp"
}

# Two set-ups at once (tests run in parallel) would trample each other.
if command -v flock >/dev/null && [ -z "${TACIT_SDK_LOCKED:-}" ]; then
    TACIT_SDK_LOCKED=1 exec flock "$cache/.lock" "$0" "$@"
fi

need_venv
venv python-current "$here/python/current.txt" & a=$!
venv python-previous "$here/python/previous.txt" & b=$!
venv python-fireworks "$here/python/fireworks.txt" & c=$!
venv node-runtime "$here/python/node-runtime.txt"
modules current & d=$!
modules previous
wait "$a" && wait "$b" && wait "$c" && wait "$d" || die "a part could not be made; see above"
echo "$cache"
