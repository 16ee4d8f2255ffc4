# Sourced by the tools, not run. Makes the project's .venv, or brings it up to date.
#
#   shmq_venv EXTRA[,EXTRA...]     sets VENV_PYTHON; instant when nothing changed
#
# Wheels only, so that no compiler is needed. A stamp beside the environment holds the checksum of
# pyproject.toml and the extras installed so far: an equal stamp means nothing is left to do.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

_find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (4,)))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "shmq needs Python 3.11 or newer, and none was found (set PYTHON=/path/to/python3)." >&2
    return 1
}

_make_venv() {
    local python
    python="$(_find_python)" || return 1
    echo "making $ROOT/.venv with $python"
    if "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        "$python" -m venv "$ROOT/.venv"
    elif "$python" -m pip --version >/dev/null 2>&1; then
        # Debian ships ensurepip in a package of its own; any pip on the machine can stand in for it.
        "$python" -m venv --without-pip "$ROOT/.venv" &&
            "$python" -m pip --python "$ROOT/.venv/bin/python" install -q pip
    else
        echo "$python has neither ensurepip nor pip: install its venv package (Debian: python3-venv)." >&2
        return 1
    fi
}

shmq_venv() {
    local wanted="${1:-}" stamp="$ROOT/.venv/.shmq-stamp" have="" checksum extra
    VENV_PYTHON="$ROOT/.venv/bin/python"
    checksum="$(cksum <"$ROOT/pyproject.toml")"
    # One at a time: two tools started together must not install into each other's feet.
    exec 9>"$ROOT/.venv.lock" && flock 9
    if [ -f "$stamp" ] && [ "$(sed -n 1p "$stamp")" = "$checksum" ] && "$VENV_PYTHON" -c '' 2>/dev/null; then
        have="$(sed -n 2p "$stamp")"
    fi
    local missing=""
    for extra in ${wanted//,/ }; do
        case ",$have," in *",$extra,"*) ;; *) missing=1 ;; esac
    done
    if [ -z "$have" ] || [ -n "$missing" ]; then
        "$VENV_PYTHON" -c '' 2>/dev/null || { rm -rf "$ROOT/.venv"; _make_venv || return 1; }
        local extras="${have#base}"
        extras="$(printf '%s,%s' "${extras#,}" "$wanted" | tr ',' '\n' | sort -u | sed '/^$/d' | paste -sd, -)"
        echo "installing shmq${extras:+[$extras]} and what it needs (wheels only) into .venv"
        "$VENV_PYTHON" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
            -e "$ROOT${extras:+[$extras]}" || return 1
        printf '%s\n%s\n' "$checksum" "base${extras:+,$extras}" >"$stamp"
    fi
    # Where PYTHONDONTWRITEBYTECODE is set, every start of a broker would compile its hundreds of modules again.
    "$VENV_PYTHON" -m compileall -q "$ROOT/shmq" || return 1
    exec 9>&-
}
