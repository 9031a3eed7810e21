# shellcheck shell=sh
# Judges cloud-init's files: with its own reader and schema where they are here, else with a YAML parser. Sourced, not run; the
# caller has REPO, WORK, say, die, and UNCHECKED, whether files that nothing can judge are taken.
# Must never: call a file good that nothing has read.

# pick_python: sets PYTHON: one that has cloud-init, else one that has a YAML parser, else none.
pick_python() {
    own=$(command -v cloud-init) || own=
    # Debian's cloud-init names the Python that has it; what else is in PATH may not see its packages.
    if [ -n "$own" ]; then own=$(sed -n '1s/^#! *\([^ ]*python[^ ]*\).*/\1/p' "$own"); fi
    for module in cloudinit yaml; do
        for PYTHON in "$own" /usr/bin/python3 python3; do
            if [ -n "$PYTHON" ] && command -v "$PYTHON" >/dev/null && "$PYTHON" -c "import yaml, $module" 2>/dev/null; then return 0; fi
        done
    done
    PYTHON=
}

# judge_cloud_init KIND FILE [KIND FILE]...
judge_cloud_init() {
    if [ "$UNCHECKED" = yes ]; then
        warn "--unchecked: cloud-init's files are taken as they are"
        return 0
    fi
    pick_python
    [ -n "$PYTHON" ] ||
        die "nothing here can read YAML, and a machine whose files cloud-init does not read has no network: install cloud-init or" \
            "python3-yaml (PyYAML), or have the files taken as they are with --unchecked"
    words=$("$PYTHON" "$REPO/scripts/lib/cloud-init.py" "$@" 2>"$WORK/log") || {
        cat "$WORK/log" >&2
        die "${words:-$PYTHON could not judge cloud-init\'s files} (--unchecked takes it as it is)"
    }
    [ -z "$words" ] || printf '%s\n' "$words" | while IFS= read -r line; do say "$line"; done
}

# first_line FILE: cloud-init goes by it.
first_line() {
    case $(head -n 1 -- "$1") in
        '#cloud-config'* | '#!'* | '#include'* | '#cloud-boothook'* | '#part-handler'* | \
            '## template: jinja'* | 'Content-Type:'* | 'MIME-Version:'*) ;;
        *) die "$1: its first line is not one that cloud-init knows (#cloud-config, for one)" ;;
    esac
}

# check_cloud_init USER_DATA META_DATA NETWORK_CONFIG: the last two may be empty.
check_cloud_init() {
    first_line "$1"
    user=$1 meta=$2 network=$3
    set --
    case $(head -n 1 -- "$user") in '#cloud-config'*) set -- user-data "$user" ;; esac
    if [ -n "$meta" ]; then set -- "$@" meta-data "$meta"; fi
    if [ -n "$network" ]; then set -- "$@" network-config "$network"; fi
    [ $# -gt 0 ] || return 0
    judge_cloud_init "$@"
    if [ "$UNCHECKED" = yes ] || [ "$1" != user-data ] || ! command -v cloud-init >/dev/null; then return 0; fi
    case $(head -n 1 -- "$user") in '#cloud-config-archive'*) return 0 ;; esac
    # Nothing below its first line asks for nothing, which cloud-init reads, and its schema command does not.
    "$PYTHON" -c 'import sys, yaml; sys.exit(yaml.safe_load(open(sys.argv[1], "rb")) is None)' "$user" || return 0
    cloud-init schema --config-file "$user" >"$WORK/log" 2>&1 ||
        { cat "$WORK/log" >&2; die "$user is not what cloud-init's schema wants (--unchecked takes it as it is)"; }
}
