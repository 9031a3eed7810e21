#!/bin/sh
# Uploads what scripts/release.sh made to a Gitea server, as the release of a tag.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
URL=${GITHUB_SERVER_URL:-}
NAME=${GITHUB_REPOSITORY:-}
DIR=$REPO/dist/release
TAG=
TOKEN_FILE=
TOKEN=
TRIES=5
DELAY=2
DRY_RUN=no
STATUS=

usage() {
    cat <<USAGE
Usage: scripts/upload-release.sh --tag vX.Y.Z [OPTION]...

Uploads every file of dist/release/ as the release vX.Y.Z of a repository on a Gitea server. Nobody sees the
release before all of it is there: it is a draft until then. What an earlier run that broke off left in the draft
is replaced. A release that is published already is never changed: with the same bytes there is nothing to do,
with others it is an error. At the end every file is fetched again and compared.

  --url URL            the server (default: GITHUB_SERVER_URL, which Gitea's runner sets)
  --repo OWNER/NAME    the repository (default: GITHUB_REPOSITORY, likewise)
  --dir DIR            the files (default: dist/release)
  --token-file FILE    an access token that may write to the repository (default: variable RELEASE_TOKEN)
  --tries N            how often a request is made that fails for a reason that may pass (default: $TRIES)
  --delay SECONDS      pause before the second try; doubled each time (default: $DELAY)
  --dry-run            say what would be uploaded, ask and send nothing
  -h, --help           this text

The token goes over HTTPS alone, or over HTTP to this machine.
USAGE
}

# request METHOD URL [CURL_OPTION]...: one try; the answer in $WORK/body, its status in STATUS, 000 for none. The
# token goes through stdin: other users of this machine see arguments.
request() {
    method=$1 url=$2
    shift 2
    STATUS=$(printf 'header = "Authorization: token %s"\n' "$TOKEN" |
        curl -q --config - --silent --show-error --proto '=http,https' --connect-timeout 30 --speed-limit 1 \
            --speed-time 120 --request "$method" --header 'Accept: application/json' --output "$WORK/body" \
            --write-out '%{http_code}' "$@" -- "$url" 2>"$WORK/error") || STATUS=000
}

passes() { case $STATUS in 000 | 408 | 429 | 5??) return 0 ;; *) return 1 ;; esac }

# why: what the server, or curl, says of the last request. No control character of it reaches the terminal.
why() {
    if [ "$STATUS" = 000 ]; then
        head -c 300 "$WORK/error"
    else
        printf 'status %s: ' "$STATUS"
        { jq -r '.message' "$WORK/body" 2>/dev/null || cat "$WORK/body"; } | head -c 300
    fi | tr '\n' ' ' | tr -d '[:cntrl:]'
}

# refuse WHAT
refuse() {
    case $STATUS in
        401 | 403) die "$1: $(why): the token must be allowed to write to $NAME" ;;
        413) die "$1: $(why): the server (or a proxy before it) takes no files of this size" ;;
        *) die "$1: $(why)" ;;
    esac
}

# again TRY WHAT: waits before another try, or gives up.
again() {
    if [ "$1" -ge "$TRIES" ]; then refuse "$2 ($1 tries)"; fi
    pause=$((DELAY << ($1 - 1)))
    say "$2: $(why): trying again in $pause s"
    sleep "$pause"
}

# ask WHAT METHOD URL [CURL_OPTION]...: of requests that may be made twice.
ask() {
    what=$1
    shift
    try=1
    while :; do
        request "$@"
        passes || return 0
        again "$try" "$what"
        try=$((try + 1))
    done
}

files() { (cd "$DIR" && find . -mindepth 1 -maxdepth 1 -printf '%P\n' | LC_ALL=C sort); }

check() {
    need_tools "scripts/install-deps.sh release brings it" curl jq
    [ -n "$TAG" ] || misuse "--tag is missing"
    matches "$TAG" 'v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?' || misuse "--tag must be such as v1.2.0, not '$TAG'"
    [ -n "$URL" ] || misuse "--url is missing"
    matches "$URL" 'https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._/-]*)?|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?/?' ||
        misuse "--url must be such as https://git.example.com (http: only of this machine), not '$URL'"
    URL=${URL%/}
    matches "$NAME" '[A-Za-z0-9._-]+/[A-Za-z0-9._-]+' || misuse "--repo must be OWNER/NAME, not '$NAME'"
    matches "$TRIES" '[1-9]|10' || misuse "--tries must be 1 to 10, not '$TRIES'"
    matches "$DELAY" '[0-9]{1,2}' || misuse "--delay must be 0 to 99, not '$DELAY'"
    check_files
    check_token
}

check_files() {
    [ -d "$DIR" ] || die "$DIR is not a directory: make release makes it"
    files >"$WORK/files"
    [ -s "$WORK/files" ] || die "$DIR is empty: make release fills it"
    while read -r file; do
        matches "$file" '[A-Za-z0-9][A-Za-z0-9._+-]*' || die "$DIR holds '$file': not a name that can be uploaded"
        if [ ! -f "$DIR/$file" ] || [ -L "$DIR/$file" ]; then die "$DIR/$file is not a file"; fi
        [ -s "$DIR/$file" ] || die "$DIR/$file is empty"
    done <"$WORK/files"
}

check_token() {
    if [ -n "$TOKEN_FILE" ]; then
        [ -f "$TOKEN_FILE" ] || die "--token-file $TOKEN_FILE is not a file"
        TOKEN=$(cat -- "$TOKEN_FILE")
    else
        TOKEN=${RELEASE_TOKEN:-}
    fi
    unset RELEASE_TOKEN
    if [ "$DRY_RUN" = yes ]; then return; fi
    [ -n "$TOKEN" ] || die "no token: give --token-file, or the variable RELEASE_TOKEN"
    matches "$TOKEN" '[A-Za-z0-9._~+/=-]+' || die "the token holds something that no token holds"
}

# find_release: sets ID and DRAFT of the tag's release; ID is empty where there is none.
find_release() {
    ID='' DRAFT=''
    ask "look for the release $TAG" GET "$API/releases/tags/$TAG"
    case $STATUS in
        404) return ;;
        200) ;;
        *) refuse "look for the release $TAG" ;;
    esac
    jq -e --arg tag "$TAG" '(.id | type == "number") and (.draft | type == "boolean") and .tag_name == $tag' \
        "$WORK/body" >/dev/null 2>&1 || die "$URL does not answer as Gitea does: $(why)"
    ID=$(jq .id "$WORK/body")
    DRAFT=$(jq .draft "$WORK/body")
}

# Another run may have been faster, and an answer may get lost: then it is there now.
make_release() {
    prerelease=false
    case $TAG in *-*) prerelease=true ;; esac
    jq -n --arg tag "$TAG" --argjson prerelease "$prerelease" \
        '{tag_name: $tag, name: $tag, draft: true, prerelease: $prerelease}' >"$WORK/release"
    try=1
    while :; do
        request POST "$API/releases" --header 'Content-Type: application/json' --data-binary "@$WORK/release"
        case $STATUS in 201 | 409) break ;; esac
        passes || refuse "make the release $TAG"
        again "$try" "make the release $TAG"
        try=$((try + 1))
    done
    find_release
    [ -n "$ID" ] || die "make the release $TAG: the server made it and does not find it"
}

# remove_assets [NAME]: of the draft: all, or the one of that name.
remove_assets() {
    ask "list the files of $TAG" GET "$API/releases/$ID/assets"
    [ "$STATUS" = 200 ] || refuse "list the files of $TAG"
    jq -r --arg name "${1-}" '.[] | select($name == "" or .name == $name) | .id' "$WORK/body" >"$WORK/ids"
    while read -r asset; do
        ask "remove file $asset of the draft $TAG" DELETE "$API/releases/$ID/assets/$asset" </dev/null
        # 404: an earlier try did it.
        case $STATUS in 204 | 404) ;; *) refuse "remove file $asset of the draft $TAG" ;; esac
    done <"$WORK/ids"
}

# upload FILE: a try that broke off may have left the file there, whole or in part.
upload() {
    size=$(wc -c <"$DIR/$1")
    attempt=1
    while :; do
        request POST "$API/releases/$ID/assets?name=$(jq -rn --arg name "$1" '$name | @uri')" \
            --form "attachment=@\"$DIR/$1\";type=application/octet-stream"
        [ "$STATUS" != 201 ] || break
        passes || [ "$STATUS" = 409 ] || refuse "upload $1"
        again "$attempt" "upload $1"
        attempt=$((attempt + 1))
        remove_assets "$1"
    done
    [ "$(jq .size "$WORK/body" 2>/dev/null)" = "$size" ] || die "upload $1: $size bytes were sent, the server has" \
        "$(jq .size "$WORK/body" 2>/dev/null)"
    say "uploaded $1, $size bytes"
}

publish() {
    printf '{"draft": false}' >"$WORK/publish"
    ask "publish $TAG" PATCH "$API/releases/$ID" --header 'Content-Type: application/json' \
        --data-binary "@$WORK/publish"
    [ "$STATUS" = 200 ] || refuse "publish $TAG"
}

# compare: what the server has, fetched, against what is here. The address is made here: one that the server
# names might be another host's, and the token would go there.
compare() {
    ask "list the files of $TAG" GET "$API/releases/$ID/assets"
    [ "$STATUS" = 200 ] || refuse "list the files of $TAG"
    jq -r '.[].name' "$WORK/body" | LC_ALL=C sort >"$WORK/there"
    cmp -s "$WORK/there" "$WORK/files" || die "the release $TAG holds other files than $DIR:" \
        "$(diff "$WORK/there" "$WORK/files" | grep '^[<>]' | tr '\n' ' ' | tr -d '[:cntrl:]')(<: there, >: here)"
    while read -r file; do
        ask "fetch $file" GET "$URL/$NAME/releases/download/$TAG/$file" </dev/null
        [ "$STATUS" = 200 ] || refuse "fetch $file"
        cmp -s "$WORK/body" "$DIR/$file" || die "$file of the release $TAG has other bytes than $DIR/$file: a published" \
            "release is never changed; make a new version"
    done <"$WORK/files"
}

upload_all() {
    find_release
    if [ "$DRAFT" = false ]; then
        compare
        say "$TAG is published already, with these bytes: nothing to do"
        return
    fi
    if [ -z "$ID" ]; then make_release; fi
    [ "$DRAFT" = true ] || die "another run published $TAG meanwhile"
    remove_assets
    while read -r file; do upload "$file" </dev/null; done <"$WORK/files"
    publish
    compare
    say "published $TAG: $URL/$NAME/releases/tag/$TAG"
}

main() {
    LC_ALL=C
    export LC_ALL
    umask 077
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --tag | --url | --repo | --dir | --token-file | --tries | --delay) need_value "$@" ;;
            *) misuse "unknown option: $1" ;;
        esac
        case $1 in
            --tag) TAG=$2 ;;
            --url) URL=$2 ;;
            --repo) NAME=$2 ;;
            --dir) DIR=$2 ;;
            --token-file) TOKEN_FILE=$2 ;;
            --tries) TRIES=$2 ;;
            --delay) DELAY=$2 ;;
        esac
        shift 2
    done
    work_folder
    check
    API=$URL/api/v1/repos/$NAME
    if [ "$DRY_RUN" = yes ]; then
        while read -r file; do
            printf '%s %s\n' "$(wc -c <"$DIR/$file")" "$file"
        done <"$WORK/files"
        say "dry run: nothing was sent; these files would be the release $TAG of $URL/$NAME"
        return
    fi
    upload_all
}

main "$@"
