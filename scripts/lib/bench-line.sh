# shellcheck shell=sh
# A line between two network namespaces, with a rate, a delay and a loss, and a registry at its far end. Sourced behind lib/cli.sh and
# lib/server.sh, not run; everything lies in WORK. The near end is where what VIA begins runs.
#
#   line_up MBIT MS LOSS    MS is the round trip, half of it each way; LOSS in per cent, each
#                           way. Sets VIA, SHAPED, which says by what it is made, and TCP_BY: TCP's congestion control, which is
#                           the kernel's own where TCP does not say
#   line_down               also for a clean-up, at any moment
#
# Both namespaces are those of processes of this script, and die with it, whatever ends it: nothing has to be removed.
#
# Must never: touch the network of this machine.

LINE_HOST=10.77.0.1:5000
CHILDREN=
VIA=
SHAPED=

# child LOG COMMAND...: one process, which SIGKILL of this shell ends as well.
child() {
    to=$1
    shift
    setpriv --pdeathsig KILL "$@" >"$to" 2>&1 </dev/null &
    CHILD=$!
    CHILDREN="$CHILD:$(born "$CHILD") $CHILDREN"
}

line_down() {
    for one in $CHILDREN; do stop_child "${one%%:*}" "${one#*:}" || true; done
    CHILDREN='' VIA=''
}

# wait_for WHAT TEST...: half a minute at most.
wait_for() {
    what=$1
    shift
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    cat "$WORK"/line-*.log >&2
    die "$what: not within 30 s"
}

in_end() { pid=$1; shift; nsenter --net="/proc/$pid/ns/net" -- "$@"; }
apart() { [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }

# new_end NAME: a network of its own; sets CHILD.
new_end() {
    child "$WORK/line-$1.log" unshare --net sleep 86400
    wait_for "a network namespace" apart "$CHILD"
}

# shape MBIT MS LOSS: of line0 and line1, by the kernel; false where it cannot.
shape() {
    for end in "$FAR line0" "$NEAR line1"; do
        if [ "$2$3" = 00 ]; then
            set -- "$1" "$2" "$3" tbf rate "${1}mbit" burst 256kb latency 50ms
        else
            set -- "$1" "$2" "$3" netem rate "${1}mbit" delay "$(($2 / 2))ms" loss "$3%" limit 1000
        fi
        mbit=$1 ms=$2 loss=$3
        shift 3
        in_end "${end% *}" tc qdisc add dev "${end#* }" root "$@" 2>"$WORK/line-tc.log" || return 1
        SHAPED="the kernel's $1"
        set -- "$mbit" "$ms" "$loss"
    done
}

# shellcheck disable=SC2034 # what it sets is the caller's
line_up() {
    new_end far
    FAR=$CHILD
    new_end near
    NEAR=$CHILD
    in_end "$FAR" ip link add line0 type veth peer name line1 netns "$NEAR" || die "this kernel has no veth"
    if ! shape "$@"; then
        # Not every kernel has netem. Then packets go through a program that delays and drops them; TCP sees no difference.
        in_end "$FAR" ip link del line0
        SHAPED="a program (no netem in this kernel): scripts/lib/bench-line.py"
        child "$WORK/line-shaper.log" nsenter --net="/proc/$FAR/ns/net" -- python3 "$REPO/scripts/lib/bench-line.py" "$@" "$NEAR"
        wait_for "scripts/lib/bench-line.py" in_end "$NEAR" ip link show line1
    fi
    for end in "$FAR line0 10.77.0.1" "$NEAR line1 10.77.0.2"; do
        # shellcheck disable=SC2086 # three words
        set -- $end
        in_end "$1" ip addr add "$3/30" dev "$2"
        in_end "$1" ip link set "$2" up
    done
    cat >"$WORK/line.yml" <<YML
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $WORK/registry}}
http: {addr: "$LINE_HOST", secret: local}
YML
    child "$WORK/line-registry.log" nsenter --net="/proc/$FAR/ns/net" -- docker-registry serve "$WORK/line.yml"
    if [ -n "${TCP-}" ]; then
        for end in "$FAR" "$NEAR"; do
            # shellcheck disable=SC2016 # of the shell that is started
            in_end "$end" sh -c 'echo "$1" >/proc/sys/net/ipv4/tcp_congestion_control' - "$TCP" || die "this kernel has no TCP by $TCP"
        done
    fi
    TCP_BY=$(in_end "$FAR" cat /proc/sys/net/ipv4/tcp_congestion_control)
    VIA="nsenter --net=/proc/$NEAR/ns/net --"
    wait_for "the registry on the line" in_end "$NEAR" curl -q -fsS --noproxy '*' --max-time 5 "http://$LINE_HOST/v2/"
}
