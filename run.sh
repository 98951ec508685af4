#!/bin/sh
# Sets up .venv, then runs an experiment of config/experiment by name.
#   sh run.sh                         the main job: the published example on CUDA, else quickstart
#   sh run.sh NAME [key=value ...]    config/experiment/NAME.yaml with overrides
#   sh run.sh list                    the experiments, a line each
#   sh run.sh sweep_alpha_preheat     a sweep; also: NAME -m key=1,2 hydra/launcher=joblib|submitit_local|slurm
#   sh run.sh claims [OPTIONS]        the paper's claims, tried: hours; options of python -m claims
#   sh run.sh study [OPTIONS]         editors on facts and real records (REAL_DIR) at equal agreement: hours; of python -m claims.study
#   sh run.sh claims_short            both in small, a quarter of an hour
#   sh run.sh gpu [OPTIONS]           the tests that need a GPU, then a step at the shapes of 7B models; of python -m benchmarks.gpu
#   sh run.sh test                    ruff check, ruff format --check, mypy and pytest, all four whatever fails
#   sh run.sh test OPTIONS            pytest alone, with these options
#   sh run.sh test --latest [OPTIONS] pytest in .venv-latest, with the newest versions that the requirements allow
#   sh run.sh install PART...         a section of requirements-extra.txt, for runs without run.sh: joblib, lm_eval, ...
# Everything else is installed as constraints.txt has it.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
venv=$root/.venv
python=$venv/bin/python
versions='-c constraints.txt'

say() { printf '%s\n' "$*" >&2; }
die() { say "run.sh: $*"; exit 1; }

find_python() {
    for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$name"
            return
        fi
    done
    die "needs Python 3.11 or newer; found none (set PYTHON=/path/to/python)"
}

# A second run.sh that starts meanwhile waits; a lock whose owner died is taken over.
lock() {
    until mkdir "$venv.lock" 2>/dev/null; do
        owner=$(cat "$venv.lock/pid" 2>/dev/null || echo)
        if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
            rm -rf "$venv.lock"
        else
            sleep 1
        fi
    done
    echo $$ >"$venv.lock/pid"
    trap 'rm -rf "$venv.lock"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}
unlock() {
    rm -rf "$venv.lock"
    trap - EXIT INT TERM
}

install() {
    say "run.sh: pip install $*"
    (cd "$root" && "$python" -m pip install --quiet --disable-pip-version-check $versions "$@" >&2) || die "pip install $* failed"
}

# section PART: its requirements in requirements-extra.txt
section() {
    sed -n "/^# \[$1\]/,/^\$/ { /^[^#]/p; }" "$root/requirements-extra.txt"
}

parts() { sed -n 's/^# \[\([a-z_]*\)\].*/\1/p' "$root/requirements-extra.txt"; }

# ready PART...: whether all are installed as the files say; the newest versions never are
ready() {
    [ "$venv" = "$root/.venv" ] || return 1
    for part in "$@"; do
        [ "$(cat "$venv/.installed-$part" 2>/dev/null)" = "$sum" ] || return 1
    done
}

# set_up PART...: make .venv and install what is missing; instant when nothing is
set_up() {
    sum=$(cat "$root"/requirements*.txt "$root/constraints.txt" | cksum)
    ready "$@" && return
    lock
    if [ ! -x "$python" ]; then
        base=$(find_python)
        "$base" -m venv "$venv" >&2 || die "'$base -m venv' failed; on Debian: apt-get install python3-venv"
    fi
    for part in "$@"; do
        ready "$part" && continue
        case $part in
            base) install -r requirements.txt ;;
            embedded) install --no-deps $(section embedded) ;;
            *) install $(section "$part") ;;
        esac
        printf '%s' "$sum" >"$venv/.installed-$part"
    done
    unlock
}

# plugins WORD...: the parts that launchers among the words need
plugins() {
    for word in "$@"; do
        case $word in
            hydra/launcher=joblib) echo joblib ;;
            hydra/launcher=submitit_local | hydra/launcher=slurm) echo submitit ;;
        esac
    done
}

# experiment_plugins NAME: those of an experiment and of what it starts from
experiment_plugins() {
    plugins $(sed -n 's|^ *- override /\(hydra/[a-z]*\): *\([a-z_]*\).*|\1=\2|p' "$root/config/experiment/$1.yaml")
    for parent in $(sed -n 's|^ *- \([a-z_]*/[a-z_0-9.-]*\)$|\1|p' "$root/config/experiment/$1.yaml"); do
        experiment_plugins "$parent"
    done
}

# check WORD...: run a tool of the test part; the last line names those that failed
check() {
    say "run.sh: $*"
    "$python" -m "$@" || failed="$failed $*;"
}

list() {
    for file in "$root"/config/experiment/*.yaml; do
        name=$(basename "$file" .yaml)
        printf '%-32s %s\n' "$name" "$(sed -n '/^# @package/d; s/^# *//p; /^[^#]/q' "$file" | head -n 1)"
    done
}

default_experiment() {
    if command -v nvidia-smi >/dev/null 2>&1 \
        && "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        say "run.sh: CUDA is present: running zsre_mistral-7b, the published example"
        echo zsre_mistral-7b
    else
        say "run.sh: no CUDA here: running quickstart, 500 edits of the embedded model on the CPU"
        echo quickstart
    fi
}

case ${1:-} in
    list) list; exit ;;
    -h | --help | help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;;
    install)
        shift
        for part in "$@"; do
            [ -n "$(section "$part")" ] || die "no part '$part'; there are:
$(parts)"
        done
        set_up base embedded "$@"
        exit
        ;;
    test)
        shift
        newest=
        if [ "${1:-}" = --latest ]; then
            shift
            newest=yes
            venv=$root/.venv-latest
            python=$venv/bin/python
            versions='--upgrade --upgrade-strategy eager'
        fi
        set_up base embedded test joblib submitit
        case ${REFERENCE_DIR:-} in
            '' | /*) ;;
            *) REFERENCE_DIR=$PWD/$REFERENCE_DIR && export REFERENCE_DIR ;;
        esac
        cd "$root"
        [ -z "$newest$*" ] || exec "$python" -m pytest "$@"
        failed=
        check ruff check
        check ruff format --check
        check mypy
        check pytest
        [ -z "$failed" ] || die "failed:$failed"
        exit
        ;;
    gpu)
        shift
        set_up base embedded test
        cd "$root"
        exec "$python" -m benchmarks.gpu --tests "$@"
        ;;
    claims | claims_short | study)
        name=$1
        shift
        set_up base embedded
        case ${REAL_DIR:-} in
            '' | /*) ;;
            *) REAL_DIR=$PWD/$REAL_DIR && export REAL_DIR ;;
        esac
        cd "$root"
        case $name in
            claims) exec "$python" -m claims "$@" ;;
            study) exec "$python" -m claims.study "$@" ;;
        esac
        [ -z "$*" ] || exec "$python" -m claims --short "$@"
        failed=
        "$python" -m claims --short || failed=' claims'
        "$python" -m claims.study --short || failed="$failed study"
        [ -z "$failed" ] || die "failed:$failed"
        exit
        ;;
esac

case ${1:-} in
    '' | *=* | -*)
        set_up base embedded $(plugins "$@")
        name=$(default_experiment)
        ;;
    *)
        name=$1
        shift
        [ -f "$root/config/experiment/$name.yaml" ] || die "no experiment '$name'; there are:
$(list)"
        set_up base embedded $(experiment_plugins "$name") $(plugins "$@")
        ;;
esac
exec "$python" "$root/main.py" "experiment=$name" "$@"
