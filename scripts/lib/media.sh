# shellcheck shell=sh
# The device that is overwritten: whether anybody uses it, and that it stays what was looked at. Sourced, not run; the caller has
# say, die, WORK (a directory that goes when it ends), DEVICE, and NAME, its name below /sys/block.
#
# The kernel is asked: what is opened with O_EXCL is not mounted, no swap, and no part of btrfs, RAID or LVM, and becomes none of
# them before it is closed. What uses a device without telling the kernel so is looked for.
# Must never: let go of the device between the check and the end; take the name of a device for the device.

# For letting go of it, and for a look at what others have open, in seconds.
RELEASE_SECS=20
LOOK_SECS=20
HELD=no

# The holder opens the device, says so, and waits for the end of its standard input. The lock keeps udev from looking at what is half
# written. Read-only: closing it is no change.
# shellcheck disable=SC2016 # for perl
HOLD_PERL='
    use Fcntl qw(:DEFAULT :flock);
    sysopen(my $disk, $ARGV[0], O_RDONLY | O_EXCL) or do { print $!{EBUSY} ? "busy\n" : "$!\n"; exit 1 };
    $SIG{ALRM} = sub { print "locked\n"; exit 1 };
    alarm 10; flock($disk, LOCK_EX) or do { print "$!\n"; exit 1 }; alarm 0;
    $| = 1; print "held\n"; sysread(STDIN, my $end, 1);'
HOLD_PYTHON='
import errno, fcntl, os, signal, sys
def end(words):
    print(words, flush=True)
    os._exit(1)
try:
    disk = os.open(sys.argv[1], os.O_RDONLY | os.O_EXCL)
    signal.signal(signal.SIGALRM, lambda *_: end("locked"))
    signal.alarm(10)
    fcntl.flock(disk, fcntl.LOCK_EX)
    signal.alarm(0)
except OSError as e:
    end("busy" if e.errno == errno.EBUSY else e.strerror)
print("held", flush=True)
os.read(0, 1)'
# In a session of its own: it sees the end of its caller, by Ctrl-C and by SIGKILL as well, and clears up behind it. In "ours" is
# where the caller has loop devices begin and end.
# shellcheck disable=SC2016 # for the inner shell
GUARD='
    "$3" "$4" "$5" "$1" || exit
    ours=$(cat "$2/ours" 2>/dev/null)
    for loop in /sys/block/loop*; do
        at="$(cat "$loop/loop/backing_file" "$loop/loop/offset" "$loop/loop/sizelimit" 2>/dev/null)"
        if [ -n "$ours" ] && [ "$at" = "$1
$ours" ]; then losetup --detach "/dev/${loop##*/}"; fi
    done
    rm -rf -- "$2"'

check_media_tools() {
    # Python takes its program behind -c.
    if command -v perl >/dev/null; then
        HOLDER=perl HOLDER_FLAG=-e HOLDER_PROGRAM=$HOLD_PERL
    elif command -v python3 >/dev/null; then
        HOLDER=python3 HOLDER_FLAG=-c HOLDER_PROGRAM=$HOLD_PYTHON
    else
        die "neither perl nor python3 is here, and one of them holds the device while it is written: install perl"
    fi
}

# shellcheck disable=SC2153 # the caller's
# identity: the device's, in one line. A name is given to the next device that comes; diskseq is not (Linux 5.15).
identity() {
    printf '%s' "$(cat "/sys/block/$NAME/dev" 2>/dev/null) $(stat -L -c '%t:%T' "$DEVICE" 2>/dev/null)"
    for file in diskseq size ro wwid serial device/wwid device/serial device/vpd_pg80 loop/backing_file; do
        printf ' %s=%s' "$file" "$(LC_ALL=C tr -dc '[:graph:]' 2>/dev/null <"/sys/block/$NAME/$file" || :)"
    done 2>/dev/null
}

# hold_device: nobody else can mount it from here on, or make swap or RAID of it. Sets IDENTITY.
hold_device() {
    mkfifo "$WORK/hold" "$WORK/held"
    # Both ways: it waits for nobody. Children inherit it, so that the device is held while a dd of this run is alive.
    exec 7<>"$WORK/hold"
    # shellcheck disable=SC2153 # the caller's
    setsid sh -c "$GUARD" usb-provision "$DEVICE" "$WORK" "$HOLDER" "$HOLDER_FLAG" "$HOLDER_PROGRAM" \
        <"$WORK/hold" >"$WORK/held" 2>"$WORK/hold.log" 7>&- &
    GUARDIAN=$!
    exec 6<"$WORK/held"
    answer=
    read -r answer <&6 || answer="$HOLDER ended without a word: $(head -n 1 "$WORK/hold.log")"
    case $answer in
        held) HELD=yes ;;
        busy) die "$DEVICE is in use ($(user_of)): unmount it, or take it out of there, first" ;;
        locked) die "$DEVICE is locked by another program (lslocks shows which): let that end first" ;;
        *) die "cannot open $DEVICE for this run alone: $answer" ;;
    esac
    IDENTITY=$(identity)
}

# release_device: returns when it is nobody's, and nothing of this run is attached to it.
release_device() {
    [ "$HELD" = yes ] || return 0
    HELD=no
    exec 7>&-
    # To the end of what the guardian writes.
    timeout "$RELEASE_SECS" cat <&6 >/dev/null || warn "$DEVICE is still held by process $GUARDIAN"
    exec 6<&-
}

# same_device: it is held, and what was looked at.
same_device() {
    # A process that ended and was not waited for has no files.
    [ -e "/proc/$GUARDIAN/fd/0" ] || die "$DEVICE is no longer held (process $GUARDIAN ended): start again"
    [ "$(identity)" = "$IDENTITY" ] || die "$DEVICE is not the device any more that was looked at: plugged in anew? Start again"
}

# numbers: the device's and its partitions', as MAJOR:MINOR.
numbers() { cat "/sys/block/$NAME/dev" "/sys/block/$NAME/$NAME"*/dev 2>/dev/null || :; }

# nodes: the device and its partitions, by the names that the kernel has for them.
nodes() {
    for entry in "/sys/block/$NAME" "/sys/block/$NAME/$NAME"*; do
        if [ -e "$entry/dev" ]; then printf '/dev/%s\n' "${entry##*/}"; fi
    done
}

# known_users: who uses it in a way that the kernel counts. For words: whether it is used is decided by O_EXCL.
known_users() {
    numbers | while read -r number; do
        grep -sh "^[0-9]* [0-9]* $number " /proc/[0-9]*/mountinfo | awk '{ print "mounted at " $5 }'
    done | sort -u
    nodes | while read -r node; do
        # btrfs has numbers of its own; its name is behind the dash.
        awk -v node="$node" '{ for (i = 7; i < NF; i++) if ($i == "-" && $(i + 2) == node) print "mounted at " $5 }' \
            /proc/[0-9]*/mountinfo 2>/dev/null | sort -u
        for device in /sys/fs/btrfs/*/devices/"${node##*/}"; do
            if [ -e "$device" ]; then echo "a device of a mounted btrfs"; fi
        done
        awk -v node="$node" '$1 == node { print "swap: " node }' /proc/swaps
        for holder in "/sys/class/block/${node##*/}"/holders/*; do
            if [ -e "$holder" ]; then echo "held by ${holder##*/}"; fi
        done
    done
    if [ -e "/sys/block/$NAME/bcache" ]; then echo "held by bcache"; fi
}

user_of() {
    users=$(known_users | head -n 1)
    printf '%s' "${users:-the kernel does not say by what: a file system, swap, RAID, LVM or another program}"
}

# backing: what a loop device stands upon.
backing() { cat "/sys/block/$NAME/loop/backing_file" 2>/dev/null || :; }

# loops_beside: other loop devices on the device, on its partitions, or on the file that it is itself.
loops_beside() {
    { nodes; backing; } >"$WORK/below"
    : >"$WORK/loops"
    while IFS= read -r below; do losetup -n -O NAME -j "$below" >>"$WORK/loops"; done <"$WORK/below"
    sort -u "$WORK/loops" | sed -e "\|^$DEVICE\$|d" -e 's/^/attached as /'
}

# open_by: lines "PROCESS FD" of what has it open, or the file that it stands upon; by number, as a container has nodes of its own.
open_by() {
    numbers | awk -F : '{ printf "%x:%x\n", $1, $2 }' >"$WORK/numbers"
    # By where the links lead: to look at a file asks its file system, and a dead one does not answer.
    timeout "$LOOK_SECS" find /proc/[0-9]*/fd -maxdepth 1 -lname '*/dev/*' -exec stat -L -c '%t:%T %n' {} + 2>/dev/null |
        awk -v numbers="$WORK/numbers" 'BEGIN { while ((getline n <numbers) > 0) known[n] } $1 in known { print $2 }'
    file=$(backing)
    [ -f "$file" ] || return 0
    # In brackets, some letters of a name would mean something.
    name=$(printf '%s' "${file##*/}" | sed 's/[^[:alnum:]._-]/?/g')
    timeout "$LOOK_SECS" find /proc/[0-9]*/fd -maxdepth 1 -lname "*/$name" 2>/dev/null | while IFS= read -r fd; do
        timeout "$LOOK_SECS" find -L "$fd" -samefile "$file" 2>/dev/null || :
    done
}

# writers: programs that have it open to write: a virtual machine, for one. O_EXCL keeps them out no more than it finds them.
writers() {
    open_by | while read -r fd; do
        process=${fd#/proc/} process=${process%%/*}
        # The last digit is the way it was opened.
        case $(sed -n 's/^flags:[[:space:]]*//p' "/proc/$process/fdinfo/${fd##*/}" 2>/dev/null) in
            *[12]) echo "open to write in $(tr -dc '[:graph:]' <"/proc/$process/comm"), process $process" ;;
        esac
    done
}

# other_paths: the same disk by another name, as multipath has it.
other_paths() {
    for id in wwid device/wwid; do
        mine=$(cat "/sys/block/$NAME/$id" 2>/dev/null) || continue
        [ -n "$mine" ] || continue
        for other in /sys/block/*; do
            # Native multipath of NVMe shows its paths, which nobody can open.
            [ "$(cat "$other/hidden" 2>/dev/null)" != 1 ] || continue
            if [ "${other##*/}" = "$NAME" ] || [ "$(cat "$other/$id" 2>/dev/null)" != "$mine" ] ||
                [ "$(cat "$other/size")" != "$(cat "/sys/block/$NAME/size")" ]; then continue; fi
            echo "the same disk as /dev/${other##*/}, by its wwid $mine: take the other away"
        done
    done
}

# check_users: what the kernel does not count.
check_users() {
    { loops_beside; writers; other_paths; } >"$WORK/users"
    user=$(head -n 1 "$WORK/users")
    [ -z "$user" ] || die "$DEVICE is in use ($user): end that first"
}
