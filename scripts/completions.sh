#!/bin/sh
# Makes the completions of bash and zsh from what the agent says of itself, so that they say nothing else.
#
# Must never: name an option that --help does not.
# shellcheck disable=SC2016 # what is printed is for other shells to expand
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
NAME=kubesolo-update
OUTPUT=$REPO/completions
AGENT=

usage() {
    cat <<USAGE
Usage: scripts/completions.sh [--agent FILE] [--output DIR] [--check]

Writes completions/kubesolo-update.bash and completions/_kubesolo-update (zsh) from the agent's --help.

  --agent FILE  the agent (default: the variable KUBESOLO_UPDATE, or else one that cargo builds, which takes minutes)
  --output DIR  default: completions/
  --check       write nothing; fail where the files in DIR are not what the agent says
  -h, --help    this text

To use them: docs/operators.md.
USAGE
}

find_agent() {
    if [ -z "$AGENT" ]; then AGENT=${KUBESOLO_UPDATE:-}; fi
    if [ -z "$AGENT" ]; then
        say "building an agent"
        (cd "$REPO" && cargo build --quiet --locked --bin "$NAME") || die "the agent does not build: --agent names one"
        AGENT=${CARGO_TARGET_DIR:-$REPO/target}/debug/$NAME
    fi
    timeout 20 "$AGENT" --version >/dev/null || die "$AGENT --version fails: --agent names an agent that runs here"
}

# options: of one --help on stdin; a line each: names (comma between), kind of its value, description.
# Kinds: - (a switch), none (a value that cannot be completed), file, dir, or the words to choose from; by the name of the value.
# A "+" before it: the option may be given several times.
options() {
    awk '
        /^Usage: /    { in_usage = 1 }
        in_usage      { if (/^$/) in_usage = 0; else usage = usage " " $0 }
        /^Options:/   { in_options = 1; next }
        /^[^ ]/       { in_options = 0 }
        !in_options   { next }
        # Not a description that goes on with the name of another option.
        /^  ?-/ {
            line = $0
            sub(/^ +/, "", line)
            count++
            while (match(line, /^(--?[A-Za-z][-A-Za-z0-9]*|help)/)) {
                word = substr(line, 1, RLENGTH)
                line = substr(line, RLENGTH + 1)
                if (word != "help") all[count] = all[count] (all[count] == "" ? "" : ",") word
                if (!sub(/^, /, "", line)) break
            }
            sub(/^ <[^>]*>/, "", line)
            sub(/^ +/, "", line)
            text[count] = line
            next
        }
        NF { line = $0; sub(/^ +/, "", line); text[count] = text[count] (text[count] == "" ? "" : " ") line }
        END {
            gsub(/ +/, " ", usage)
            for (i = 1; i <= count; i++) {
                kind = "-"
                n = split(all[i], list, ",")
                for (j = 1; j <= n; j++) if (index(usage, list[j] " <")) {
                    kind = "none"
                    rest = substr(usage, index(usage, list[j] " <") + length(list[j]) + 2)
                    value = substr(rest, 1, match(rest, /[.>]/) - 1)
                    if (value ~ /file|path|device/) kind = "file"
                    else if (value == "directory") kind = "dir"
                    else if (index(value, "|")) { kind = value; gsub(/\|/, " ", kind) }
                    if (rest ~ /^[^]]*\.\.\./) kind = "+" kind
                }
                print all[i] "\t" kind "\t" text[i]
            }
        }'
}

# commands: of the program's --help; a line each: name, description.
commands() {
    awk '/^Commands:/ { on = 1; next } /^[^ ]/ { on = 0 } !on || !NF { next }
        /^  ? ?[a-z]/ { count++; name[count] = $1; $1 = ""; sub(/^ /, ""); text[count] = $0; next }
        { sub(/^ +/, ""); text[count] = text[count] (text[count] == "" ? "" : " ") $0 }
        END { for (i = 1; i <= count; i++) print name[i] "\t" text[i] }'
}

ask() {
    "$AGENT" --help >"$WORK/help"
    commands <"$WORK/help" >"$WORK/commands"
    [ "$(wc -l <"$WORK/commands")" -gt 5 ] || die "$AGENT --help lists no commands: its form has changed, and so must this script"
    options <"$WORK/help" >"$WORK/options"
    while IFS="$TAB" read -r command _; do
        "$AGENT" "$command" --help | options >"$WORK/options-$command"
        grep -q '^.*--help' "$WORK/options-$command" || die "$AGENT $command --help lists no options: its form has changed"
    done <"$WORK/commands"
}

# words FILE: all options of it; words_of_kind FILE PATTERN: those whose value is of that kind.
words() { cut -f 1 "$1" | tr ',\n' '  ' | sed 's/ $//'; }
words_of_kind() { awk -F '\t' -v kind="$2" '{ k = $2; sub(/^\+/, "", k) } k ~ kind { print $1 }' "$1" |
    tr ',' '\n' | LC_ALL=C sort -u | tr '\n' '|' | sed 's/|$//'; }

bash_case() {
    printf '        %s) words=%s ;;\n' "$1" "'$(words "$2")'"
}

bash_file() {
    cat <<'HEAD'
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
HEAD
    cat "$WORK"/options "$WORK"/options-* | sort -u >"$WORK/every"
    # Before a command only the program's own options stand.
    values=$(words_of_kind "$WORK/options" '[^-]')
    [ -z "$values" ] || printf '            %s) at=$((at + 1)) ;;\n' "$values"
    cat <<'NEXT'
            -*) ;;
            *) command=$word; break ;;
        esac
    done
    case $prev in
NEXT
    files=$(words_of_kind "$WORK/every" '^file$') dirs=$(words_of_kind "$WORK/every" '^dir$')
    printf '        %s)\n            compopt -o filenames 2>/dev/null\n            mapfile -t COMPREPLY < <(compgen -f -- "$cur")\n            return ;;\n' "$files"
    [ -z "$dirs" ] || printf '        %s)\n            compopt -o filenames 2>/dev/null\n            mapfile -t COMPREPLY < <(compgen -d -- "$cur")\n            return ;;\n' "$dirs"
    awk -F '\t' '{ k = $2; sub(/^\+/, "", k) } k ~ / / { n = $1; gsub(/,/, "|", n)
        printf "        %s) mapfile -t COMPREPLY < <(compgen -W \"%s\" -- \"$cur\"); return ;;\n", n, k }' "$WORK/every"
    none=$(words_of_kind "$WORK/every" '^none$')
    [ -z "$none" ] || printf '        %s) return ;;\n' "$none"
    printf '    esac\n    case $command in\n'
    printf "        '') words='%s %s' ;;\n" "$(cut -f 1 "$WORK/commands" | tr '\n' ' ' | sed 's/ $//')" "$(words "$WORK/options")"
    while IFS="$TAB" read -r command _; do bash_case "$command" "$WORK/options-$command"; done <"$WORK/commands"
    cat <<'TAIL'
        *) words='' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _kubesolo_update kubesolo-update
TAIL
}

# zsh_options FILE: arguments of _arguments.
zsh_options() {
    awk -F '\t' -v q="'" '{
        text = $3; gsub(/\\/, "\\\\", text); gsub(/\[/, "\\[", text); gsub(/\]/, "\\]", text); gsub(q, q "\\" q q, text)
        gsub(/:/, "\\:", text)
        several = sub(/^\+/, "", $2)
        action = ""
        if ($2 == "file") action = ":file:_files"
        else if ($2 == "dir") action = ":directory:_files -/"
        else if ($2 == "none") action = ":value: "
        else if ($2 != "-") action = ":value:(" $2 ")"
        n = split($1, names, ",")
        for (i = 1; i <= n; i++) if (names[i] ~ /^-/)
            printf "                %s%s%s[%s]%s%s \\\n", q, several ? "*" : "", names[i], text, action, q
    }' "$1"
}

zsh_file() {
    cat <<'HEAD'
#compdef kubesolo-update
# Completion of kubesolo-update for zsh. Made by scripts/completions.sh from the agent's --help.
_kubesolo_update() {
    local context state state_descr line
    typeset -A opt_args
    _arguments -C \
HEAD
    zsh_options "$WORK/options"
    printf '                %s && return\n' "'1: :->command' '*:: :->options'"
    printf '    case $state in\n        command)\n            local -a commands=(\n'
    awk -F '\t' -v q="'" '{ gsub(q, q "\\" q q, $2); gsub(/:/, "\\:", $2); printf "                %s%s:%s%s\n", q, $1, $2, q }' "$WORK/commands"
    printf '            )\n            _describe command commands ;;\n        options)\n            case $words[1] in\n'
    while IFS="$TAB" read -r command _; do
        printf '            %s) _arguments \\\n' "$command"
        zsh_options "$WORK/options-$command" | sed '$ s/ \\$/ ;;/'
    done <"$WORK/commands"
    cat <<'TAIL'
            esac ;;
    esac
}
_kubesolo_update "$@"
TAIL
}

main() {
    LC_ALL=C
    export LC_ALL
    TAB=$(printf '\t')
    is_check=no
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --check) is_check=yes ;;
            --agent) need_text "$@"; AGENT=$2; shift ;;
            --output) need_text "$@"; OUTPUT=$2; shift ;;
            *) misuse "unknown option: $1" ;;
        esac
        shift
    done
    work_folder
    find_agent
    ask
    bash_file >"$WORK/$NAME.bash"
    zsh_file >"$WORK/_$NAME"
    for file in "$NAME.bash" "_$NAME"; do
        if [ "$is_check" = yes ]; then
            diff -u "$OUTPUT/$file" "$WORK/$file" >&2 ||
                die "$OUTPUT/$file is not what $AGENT --help says: scripts/completions.sh writes it anew"
        else
            mkdir -p "$OUTPUT"
            cp -- "$WORK/$file" "$OUTPUT/$file"
        fi
    done
}

main "$@"
