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
        --authfile|--conf|--config|--initramfs|--kernel|--key|--layout|--state|--textfile|--watchdog)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return ;;
        --keys|--root|--site-dir)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$cur")
            return ;;
        --arch) mapfile -t COMPREPLY < <(compgen -W "amd64 arm64" -- "$cur"); return ;;
        --slot) mapfile -t COMPREPLY < <(compgen -W "A B" -- "$cur"); return ;;
        --as|--channel|--check-timeout|--expires|--listen|--min-compatible|--registry|--release-date|--retries|--server|--splay|--stable-for|--tag|--timeout|--version) return ;;
    esac
    case $command in
        '') words='check apply activate rollback healthcheck status metrics verify device inspect lint -V --version --json --shell -h --help' ;;
        check) words='--config --state --root --json --shell --quiet --verbose --server --registry --tag --layout --retries --splay --allow-downgrade --retry-failed --ignore-window -h --help' ;;
        apply) words='--config --state --root --json --shell --quiet --verbose --server --registry --tag --layout --retries --splay --allow-downgrade --retry-failed --ignore-window --reboot --allow-unproven-bootloader --ok-if-nothing --activate --dry-run -h --help' ;;
        activate) words='--config --state --root --json --shell --quiet --verbose --ignore-window --reboot --allow-unproven-bootloader -h --help' ;;
        rollback) words='--config --state --root --json --shell --quiet --verbose --retry-failed --reboot --allow-unproven-bootloader -h --help' ;;
        healthcheck) words='--config --state --root --json --shell --quiet --verbose --timeout --check-timeout --stable-for --watchdog --reboot-on-failure -h --help' ;;
        status) words='--config --state --root --json --shell --quiet --verbose -h --help' ;;
        metrics) words='--config --state --root --json --shell --quiet --verbose --listen --once --textfile -h --help' ;;
        verify) words='--config --state --root --json --shell --quiet --verbose --server --registry --tag --layout --retries --slot --source --repair-boot-variables -h --help' ;;
        device) words='--root --json --shell -h --help' ;;
        inspect) words='--json --shell --quiet --verbose --tag --retries --key --as --authfile --config -h --help' ;;
        lint) words='--json --shell --initramfs --keys --site-dir --conf --kernel --arch --list --version --channel --min-compatible --release-date --expires -h --help' ;;
        *) words='' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _kubesolo_update kubesolo-update
