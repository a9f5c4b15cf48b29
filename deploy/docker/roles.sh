#!/bin/bash
# Runs once, when the volume is new: a database for each service, owned by the role of the migrations, and a role for the
# service itself, which can connect to its own database only. What it may do there `amends migrate --grant-to` says.
set -euo pipefail

run() { psql -v ON_ERROR_STOP=1 --no-psqlrc -q -U "$POSTGRES_USER" "$@"; }

run -d postgres -v password="$MIGRATIONS_PASSWORD" <<'SQL'
create role migrations login password :'password';
SQL

for service in order payment inventory shipping notification orchestrator; do
    password=${service^^}_PASSWORD
    run -d postgres -v service="$service" -v password="${!password}" <<'SQL'
create role :"service" login password :'password';
create database :"service" owner migrations;
revoke all on database :"service" from public;
grant connect on database :"service" to :"service";
SQL
done
