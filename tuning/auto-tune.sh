#!/bin/sh
# Tunes this machine for Iris, as root: auto-tune.sh [CONNECTIONS] [FLAGS of `iris-tune apply`]. `iris-tune plan` shows what
# it would change, `iris-tune undo` puts everything back. IRIS_TUNE names the program where it is not on the PATH.
set -eu
case "${1:-}" in
  '' | -*) ;;
  *) connections=$1; shift; set -- --connections "$connections" "$@" ;;
esac
exec "${IRIS_TUNE:-iris-tune}" apply "$@"
