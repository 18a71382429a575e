#!/usr/bin/env bash
# Try the install that container and service use, without either: install into a temporary folder, serve, ask, stop.
#
#     deploy/check.sh            # TORCH, INDEX and PYTHON as for install.sh; VENV=FOLDER tries an installation that is there
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
venv=${VENV:-$work/venv}
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2> /dev/null || true; rm -rf "$work"' EXIT

say() { printf '%-50s %s\n' "$1" "$2"; }
fail() { say "$1" FAILED; cat "$work/log"; exit 1; }
ask() { curl --silent --show-error --fail --max-time 120 "$@"; }

[ -n "${VENV:-}" ] || "$here/install.sh" "$venv"
head -c 24 /dev/urandom | base64 | tr -d '=+/\n' > "$work/token"
cd "$work" # so that the package is the installed one
"$venv/bin/duovox" serve --port 0 --device cpu --token-file "$work/token" 2> "$work/log" &
server=$!
for _ in $(seq 600); do
  address=$(sed -n 's|.*listening on \(http://[^/]*\)/.*|\1|p' "$work/log")
  [ -n "$address" ] && ask "$address/readyz" > /dev/null 2>&1 && break
  kill -0 "$server" 2> /dev/null || fail "the server starts"
  sleep 0.2
done
token="Authorization: Bearer $(cat "$work/token")"

[ "$(ask "$address/healthz")" = '{"status":"ok"}' ] || fail "it lives"
say "it lives and is ready" "$address"
case $(ask "$address/") in *"<html"*) say "the page is in the package" ok ;; *) fail "the page is in the package" ;; esac
[ "$(curl --silent --output /dev/null --write-out '%{http_code}' "$address/v1/model")" = 401 ] || fail "the token is asked for"
say "the token is asked for" ok
ask "$address/v1/generate" -H "$token" -H "Accept: audio/wav" -H "Content-Type: application/json" \
  -d '{"label": "three", "seed": 7}' -o three.wav || fail "it speaks"
say "it speaks" "$(wc -c < three.wav) bytes"
heard=$(ask "$address/v1/classify" -H "$token" -F file=@three.wav)
case $heard in *'"label":"three"'*) say "it hears what it spoke" three ;; *) fail "it hears what it spoke" ;; esac
kill -TERM "$server"
wait "$server" || fail "it ends on SIGTERM"
server=
say "it ends on SIGTERM with exit code" 0
