#!/bin/sh
# Creates .venv and installs the project into it; does nothing if that is done already.
# Called by `make setup`. PYTHON names the interpreter; without it one is searched for.
set -eu
cd "$(dirname "$0")/.."
root=$(pwd -P)
venv=$root/.venv
stamp=$venv/.installed

fail() {
    echo "setup: $1" >&2
    exit 1
}

# Prints "ok <version> <real executable>", or what the interpreter lacks. The interpreter must be run to know:
# a pyenv shim is an executable file even if no Python version is behind it. In an active virtual environment
# the executable is that of the interpreter from which the environment was made.
probe='
import os, sys, sysconfig
name = "python%d.%d" % sys.version_info[:2]
if sys.version_info[:2] not in ((3, 11), (3, 12)):
    print("is Python %d.%d" % sys.version_info[:2]); sys.exit()
try:
    import ensurepip, venv
except ImportError:
    print("cannot create virtual environments (Debian/Ubuntu: apt-get install %s-venv)" % name); sys.exit()
if not os.path.isfile(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
    print("has no header Python.h (Debian/Ubuntu: apt-get install %s-dev)" % name); sys.exit()
print("ok", name, getattr(sys, "_base_executable", None) or sys.executable)
'

inspect() {
    "$1" -c "$probe" 2>/dev/null || echo "does not run"
}

# Every folder that may hold an interpreter, one per line.
folders() {
    echo "$PATH" | tr ':' '\n'
    for base in "${PYENV_ROOT:-}" "${HOME:-}/.pyenv"; do
        ls -d "$base"/versions/3.11*/bin "$base"/versions/3.12*/bin 2>/dev/null || true
    done
    share=${XDG_DATA_HOME:-${HOME:-}/.local/share}
    ls -d "${UV_PYTHON_INSTALL_DIR:-$share/uv/python}"/cpython-3.1[12]*/bin 2>/dev/null || true
    printf '%s\n' /usr/local/bin /usr/bin /bin
}

# Sets $python to the first usable interpreter, 3.11 before 3.12; otherwise fails naming the nearest miss.
find_python() {
    python=
    missing=
    if [ -n "${PYTHON:-}" ]; then
        answer=$(inspect "$PYTHON")
        case $answer in
        "ok "*) python=${answer#ok python3.?? } ;;
        *) fail "PYTHON=$PYTHON $answer; Python 3.11 or 3.12 with venv and headers is needed" ;;
        esac
        return
    fi
    IFS='
'
    for name in python3.11 python3.12 python3 python; do
        for folder in $(folders); do
            [ -x "$folder/$name" ] || continue
            answer=$(inspect "$folder/$name")
            case $answer in
            "ok "*)
                python=${answer#ok python3.?? }
                unset IFS
                return
                ;;
            cannot*|has*) missing=${missing:-"$folder/$name $answer"} ;;
            esac
        done
    done
    unset IFS
    [ -z "$missing" ] || fail "$missing"
    fail "Python 3.11 or 3.12 was not found (3.13 has no numpy<2): install python3.11 with its venv and dev \
packages, or pass PYTHON=/path/to/python3.11"
}

# What a current .venv was made from: it changes if the checkout moves or the requirements change.
made_from() {
    cksum requirements.txt setup.py
    echo "$root"
}

# True when .venv runs, has pip, and is the Python version that PYTHON asks for.
venv_works() {
    [ -x "$venv/bin/python" ] || return 1
    "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
        2>/dev/null || return 1
    [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" -c 'import sys; print(sys.version_info[:2])' 2>/dev/null)" = \
        "$("$venv/bin/python" -c 'import sys; print(sys.version_info[:2])')" ]
}

command -v "${cc_path:-g++}" >/dev/null 2>&1 ||
    fail "g++ was not found, and Jittor compiles C++: install it (Debian/Ubuntu: apt-get install g++)"

if venv_works; then
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(made_from)" ] && exit 0
else
    find_python
    echo "setup: creating .venv with $python"
    "$python" -m venv --clear "$venv"
fi

quiet=
[ -t 1 ] || quiet=--quiet
pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check $quiet "$@"
}
echo "setup: installing requirements.txt (several minutes on the first run)"
pip install -r requirements.txt setuptools wheel
pip install --no-deps --no-build-isolation --use-pep517 -e .
made_from > "$stamp"
echo "setup: done; the jittwin command is .venv/bin/jittwin"
