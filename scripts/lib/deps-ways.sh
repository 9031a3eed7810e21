# shellcheck shell=sh
# How scripts/install-deps.sh brings a package that is not apt's: pip, npm, cargo, go, rustup, and, by lib/deps-apt.sh, packages of
# another Debian. Sourced behind that one, not run. Each way works on the row whose columns are in variables; why it failed is in
# $WORK/log.
# shellcheck disable=SC2154 # the columns: probe, how, package, version, cost; dir, mark, way

RETRIES=1

# fetch_pip: what is in the lock is held to its hashes: what compiles and links the agent gets into it.
fetch_pip() {
    in_time /usr/bin/python3 -m venv "$dir" || return 1
    pinned=
    rest=$version
    for name in $package; do
        pinned="$pinned $name==${rest%% *}" rest=${rest#* }
    done
    lock=$REPO/scripts/builder-pip.lock
    if grep -q "^${package%% *}==" "$lock" 2>/dev/null; then
        for one in $pinned; do
            grep "^$one " "$lock" || { echo "error: $one is not in scripts/builder-pip.lock, which has its hashes (docs/pipelines.md)" >"$WORK/log"; return 1; }
        done >"$WORK/requirements"
        pinned="--require-hashes --only-binary=:all: -r $WORK/requirements"
    fi
    # shellcheck disable=SC2086 # a list of words
    in_time "$dir/bin/pip" install -q --disable-pip-version-check --timeout "$ANSWER" --retries "$RETRIES" $pinned
}

fetch_npm() {
    in_time npm install --no-audit --no-fund --ignore-scripts --fetch-timeout="${ANSWER}000" --fetch-retries="$RETRIES" \
        --prefix "$dir" "$package@$version"
}

# Not optimised: it serves tests. The build takes a third of the time.
fetch_cargo() {
    code=0
    CARGO_NET_RETRY=$RETRIES CARGO_HTTP_TIMEOUT=$ANSWER in_time cargo install --debug --locked --root "$dir" \
        --target-dir "$dir/target" --version "$version" "$package" || code=$?
    rm -rf "$dir/target"
    return "$code"
}

# A directory of this repository is built as it stands there (its version is a mark: raised where it is to be built anew), and
# not optimised: the build takes two thirds of the time.
fetch_go() {
    mkdir -p "$WORK/go/bin" "$dir/bin"
    case $package in
        ./*) set -- build -C "$REPO/$package" -trimpath -ldflags=-s '-gcflags=all=-N -l -dwarf=false' -o "$dir/bin/${dir##*/}" . ;;
        *) set -- install -trimpath -ldflags=-s "$package@$version" ;;
    esac
    GOBIN=$dir/bin GOPATH=$WORK/go GOCACHE=$WORK/go/cache GOFLAGS=-modcacherw GOWORK=off CGO_ENABLED=0 \
        in_time go "$@"
}

fetch_rustup() {
    in_time rustup component add "$package" ||
        in_time rustup toolchain install stable --profile minimal --component "$package"
}

# impatient: after one server that could not be reached, its way is not tried again, and the others wait less: it is the
# network, mostly.
impatient() {
    grep -qiE 'timed? ?out|timeout|connection (failed|refused|broken)|could not connect|resolv|no such host|name resolution|unreachable|EAI_AGAIN|ENOTFOUND|ECONNREFUSED' \
        "$WORK/log" || return 0
    DEAD="$DEAD $way" RETRIES=0
    if [ "$ANSWER" -gt 5 ]; then ANSWER=5; fi
}

# fetch_one: the row's own way, into a directory that holds nothing yet.
fetch_one() {
    : >"$WORK/log"
    if ! mkdir -p "$REPO/.tools/bin" 2>/dev/null || [ ! -w "$REPO/.tools/bin" ]; then
        echo "error: permission denied: $REPO/.tools belongs to another user (ls -ld)" >"$WORK/log"
        return 1
    fi
    room "$REPO/.tools" "${cost%/*}" && room "${TMPDIR:-/tmp}" "${cost%/*}" || return 1
    if [ "$way" != rustup ]; then
        { rm -rf "$dir" && mkdir -p "$dir"; } 2>"$WORK/log" || return 1
    fi
    "fetch_$way"
}

# settle: a program of the directory's own name gets into .tools/bin. The mark comes last: what is half made has none.
settle() {
    name=${dir##*/}
    for sub in bin usr/bin; do
        if [ -x "$dir/$sub/$name" ]; then ln -sf "../$name/$sub/$name" "$REPO/.tools/bin/$name"; fi
    done
    case $way in
        unpack) find "$root/debs" -name '*.deb' -printf '%f\n' | sort >"$WORK/mark" ;;
        *) echo "$version" >"$WORK/mark" ;;
    esac
    mv "$WORK/mark" "$dir/$mark"
    echo "error: it was installed, and does not fit: ${probe}" >"$WORK/log"
}
