# shellcheck shell=sh
# What a script starts in the background, and ends again: sourced, by scripts that have say() and die().
#
# Must never: wait without an end; read a log that is not there yet; take a signal that was sent for one that arrived;
# signal a process that is not the one that was started. POSIX sh on Linux: /proc tells who a process is, sleep takes
# fractions.
#
#   start_server LOG COMMAND...     starts one server, which is one process; sets SERVER_PID. LOG is there before it is
#   await_server SECONDS TEST...    until TEST (which must have an end of its own) says yes. Ends the script, with the
#                                   end of the log, where the server ends first, or SECONDS pass
#   stop_server                     for a clean-up, at any moment, whatever start_server has come to: ends it and waits.
#                                   Returns 1 where not even SIGKILL ends it; it never ends the script
#   start_registry DIR SECONDS      a docker-registry on loopback that keeps everything in DIR; sets REGISTRY_HOST
#   stop_child PID [BORN]           ends any child of this shell, in the same way; BORN is what born says of it
#
# A signal may be lost on its way to a child, and then `wait` waits for ever. dash (seen with 0.5.12) comes out of fork
# with its parent's handlers in place: the child first notes the signal for a trap of its parent, then forgets the
# parent's traps, and the note with them, and goes on to start its program. On a busy machine a parent is that fast: it
# reads a log which the child was to make, fails, and its clean-up sends SIGTERM before the child has run at all (of 80
# starts beside four busy loops, five failed at the log, and one more waited for ever). Hence: the log is made here,
# SIGTERM is sent again until it is heard, and SIGKILL, which no program can lose, is the end of every wait.

# How long SIGTERM, and then SIGKILL, may take.
STOP_SECS=10
KILL_SECS=10
LOG_LINES=20

SERVER=
SERVER_PID=
SERVER_BORN=
SERVER_LOG=
SERVER_BEFORE=
REGISTRY_HOST=

# uptime: in whole seconds; no clock that somebody sets.
uptime_secs() {
    IFS=' .' read -r seconds _ </proc/uptime
    printf '%s\n' "$seconds"
}

# stat_of PID: state and time of birth; nothing for one that is gone. A program's name may have any characters in it.
stat_of() { sed -n 's/.*) //p' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f1,20; }

# born PID: with its number, who it is: numbers are used again. "gone" for one that is.
born() {
    it=$(stat_of "$1") || it=
    printf '%s\n' "${it:-? gone}" | cut -d' ' -f2
}

# runs PID BORN: one that has ended and was not waited for yet does not.
runs() {
    it=$(stat_of "$1") || it=
    case $it in "" | Z* | X*) return 1 ;; esac
    [ -z "$2" ] || [ "${it#* }" = "$2" ]
}

# end_of SIGNAL SECONDS PID BORN: sends it until the process is gone.
end_of() {
    deadline=$(($(uptime_secs) + $2))
    while runs "$3" "$4"; do
        [ "$(uptime_secs)" -lt "$deadline" ] || return 1
        kill -s "$1" "$3" 2>/dev/null || true
        sleep 0.05
    done
}

stop_child() {
    end_of TERM "$STOP_SECS" "$1" "${2:-}" || end_of KILL "$KILL_SECS" "$1" "${2:-}" || {
        say "process $1 does not end, not even by SIGKILL: it waits for a device; look at /proc/$1/stack"
        return 1
    }
    # It is gone: this returns at once.
    wait "$1" 2>/dev/null || true
}

last_words() { tail -n "$LOG_LINES" "$SERVER_LOG" 2>/dev/null | sed 's/^/    /' >&2 || true; }

start_server() {
    SERVER_LOG=$1
    shift
    SERVER=$1
    [ -r /proc/uptime ] || die "start $SERVER: /proc is not mounted: without it no one can tell when it ends"
    # In a subshell: a redirection that fails ends the shell that it fails in.
    why=$( (: >"$SERVER_LOG") 2>&1) ||
        die "start $SERVER: its log $SERVER_LOG cannot be written: ${why##*: }: make room, or name another directory"
    # A signal may end the script between starting and noting: then it is known by $! alone.
    SERVER_BEFORE=${!:-none}
    "$@" >>"$SERVER_LOG" 2>&1 </dev/null &
    SERVER_PID=$!
    SERVER_BORN=$(born "$SERVER_PID")
}

# server_ended WHEN: nobody told it to.
server_ended() {
    code=0
    wait "$SERVER_PID" 2>/dev/null || code=$?
    SERVER_PID='' SERVER_BORN='' SERVER_BEFORE=''
    say "$SERVER $1 (exit code $code); the end of its log, $SERVER_LOG:"
    last_words
}

await_server() {
    deadline=$(($(uptime_secs) + $1))
    limit=$1
    shift
    while :; do
        if ! runs "$SERVER_PID" "$SERVER_BORN"; then
            server_ended "ended before it was ready"
            die "$SERVER did not start"
        fi
        if "$@"; then return 0; fi
        if [ "$(uptime_secs)" -ge "$deadline" ]; then
            say "$SERVER is not ready after $limit s; the end of its log, $SERVER_LOG:"
            last_words
            die "$SERVER did not start within $limit s"
        fi
        sleep 0.05
    done
}

stop_server() {
    if [ -z "$SERVER_PID" ]; then
        if [ -z "$SERVER_BEFORE" ] || [ "${!:-none}" = "$SERVER_BEFORE" ]; then return 0; fi
        SERVER_PID=$!
    fi
    SERVER_BEFORE=
    if [ -n "$SERVER_BORN" ] && ! runs "$SERVER_PID" "$SERVER_BORN"; then
        server_ended "had ended by itself"
        return 0
    fi
    pid=$SERVER_PID born=$SERVER_BORN
    SERVER_PID='' SERVER_BORN=''
    stop_child "$pid" "$born"
}

# registry_answers: once it has said where it listens. The kernel chose the port.
registry_answers() {
    port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$SERVER_LOG")
    [ -n "$port" ] && curl -q -fs --noproxy '*' --max-time 10 -o /dev/null "http://127.0.0.1:$port/v2/"
}

start_registry() {
    mkdir -p "$1"
    cat >"$1/config.yml" <<YML
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $1}}
http: {addr: "127.0.0.1:0", secret: local}
YML
    start_server "$1/log" docker-registry serve "$1/config.yml"
    await_server "$2" registry_answers
    # shellcheck disable=SC2034 # the caller's
    REGISTRY_HOST=127.0.0.1:$port
}
