# Completion of kubesolo-update for bash. Made by scripts/completions.sh from the agent's --help.
# shellcheck shell=bash
_kubesolo_update() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command='' word words
    local at=1
    COMPREPLY=()
    while [ "$at" -lt "$COMP_CWORD" ]; do
        word=${COMP_WORDS[at]}
        at=$((at + 1))
        case $word in
            -*) ;;
            *) command=$word; break ;;
        esac
    done
    case $prev in
        --config|--initramfs|--layout|--state|--textfile|--watchdog)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return ;;
        --root)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$cur")
            return ;;
        --slot) mapfile -t COMPREPLY < <(compgen -W "A B" -- "$cur"); return ;;
        --channel|--check-timeout|--expires|--listen|--min-compatible|--registry|--release-date|--retries|--server|--splay|--stable-for|--tag|--timeout|--version) return ;;
    esac
    case $command in
        '') words='check apply activate rollback healthcheck status metrics verify lint -V --version --json --shell -h --help' ;;
        check) words='--config --state --root --server --registry --tag --layout --json --shell --splay --retries --allow-downgrade --retry-failed --ignore-window -h --help' ;;
        apply) words='--config --state --root --server --registry --tag --layout --json --shell --splay --retries --ok-if-nothing --quiet --activate --reboot --allow-downgrade --retry-failed --ignore-window --allow-unproven-bootloader -h --help' ;;
        activate) words='--config --state --root --server --registry --tag --layout --json --shell --reboot --ignore-window --allow-unproven-bootloader -h --help' ;;
        rollback) words='--config --state --root --server --registry --tag --layout --json --shell --retry-failed --reboot --allow-unproven-bootloader -h --help' ;;
        healthcheck) words='--config --state --root --server --registry --tag --layout --json --shell --timeout --check-timeout --stable-for --watchdog --reboot-on-failure -h --help' ;;
        status) words='--config --state --root --server --registry --tag --layout --json --shell -h --help' ;;
        metrics) words='--config --state --root --server --registry --tag --layout --json --shell --listen --once --textfile -h --help' ;;
        verify) words='--config --state --root --server --registry --tag --layout --json --shell --slot --source --repair-boot-variables -h --help' ;;
        lint) words='--json --shell --initramfs --list --version --channel --min-compatible --release-date --expires -h --help' ;;
        *) words='' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _kubesolo_update kubesolo-update
