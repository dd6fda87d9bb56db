# Sourced by scripts that need a PostgreSQL of their own: start_postgres sets PG_URL, stop_postgres removes everything.
start_postgres() {
  local bin port
  bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
  [ -n "$bin" ] || bin=$(dirname "$(command -v initdb)")
  PG_DIR=$(mktemp -d "${TMPDIR:-/tmp}/scrip-pg-XXXXXX")
  PG_BIN=$bin
  port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])')
  PG_RUN=()
  if [ "$(id -u)" -eq 0 ]; then
    chown postgres "$PG_DIR"
    PG_RUN=(runuser -u postgres --)
  fi
  "${PG_RUN[@]}" "$bin/initdb" -D "$PG_DIR/data" -U postgres -A trust -E UTF8 --locale=C >"$PG_DIR/initdb.log"
  "${PG_RUN[@]}" "$bin/pg_ctl" -D "$PG_DIR/data" -w -l "$PG_DIR/server.log" \
    -o "-p $port -k $PG_DIR -c listen_addresses=127.0.0.1 -c shared_buffers=2GB -c max_wal_size=8GB ${PG_OPTIONS:-}" start >/dev/null
  PG_URL="postgres://postgres@127.0.0.1:$port"
}

stop_postgres() {
  [ -n "${PG_DIR:-}" ] || return 0
  "${PG_RUN[@]}" "$PG_BIN/pg_ctl" -D "$PG_DIR/data" -m fast stop >/dev/null 2>&1 || true
  rm -rf "$PG_DIR"
  PG_DIR=
}

new_database() {
  "${PG_RUN[@]}" "$PG_BIN/psql" -q "$PG_URL/postgres" -c "CREATE DATABASE $1"
}
