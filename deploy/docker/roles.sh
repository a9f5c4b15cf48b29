#!/bin/bash
# A database for each service, owned by the role of the migrations, and a role for the service itself, which can connect
# to its own database only. What it may do there `amends migrate --grant-to` says.
# It is run at every start: what was interrupted is completed, and passwords are as the environment has them now.
set -euo pipefail

# Passwords come from the environment, so that no list of processes has them.
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
echo "the databases and their roles are there"
