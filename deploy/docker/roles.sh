#!/bin/bash
# Creates a database for each service, owned by the role of the migrations, and a role for the service itself. That role can
# connect only to its own database. `amends migrate --grant-to` grants its rights there.
# The script runs at every start: it completes an interrupted run, and sets the passwords that the environment has now.
set -euo pipefail

# Passwords come from the environment, so that they are in no list of processes.
run() { psql -X -q -v ON_ERROR_STOP=1 -d postgres "$@"; }

run <<'SQL'
\getenv password MIGRATIONS_PASSWORD
select 'create role migrations' where not exists (select from pg_roles where rolname = 'migrations') \gexec
alter role migrations login password :'password';
revoke all on database postgres, template1 from public;
SQL

for service in order payment inventory shipping notification orchestrator; do
    run -v service="$service" <<SQL
\getenv password ${service^^}_PASSWORD
select format('create role %I', :'service')
where not exists (select from pg_roles where rolname = :'service') \gexec
alter role :"service" login password :'password';
select format('create database %I owner migrations', :'service')
where not exists (select from pg_database where datname = :'service') \gexec
revoke all on database :"service" from public;
grant connect on database :"service" to :"service";
SQL
done
echo "the databases and their roles exist"
