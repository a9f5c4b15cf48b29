# The commands that a contributor types. `just` lists them. Each one can also be typed without just.

# Lists the commands.
default:
    @just --list

# Compiles everything without running it.
check:
    cargo check --workspace --all-targets

# Formats the code.
fmt:
    cargo fmt --all

# Checks the format and runs clippy, with warnings as errors.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Runs the unit tests of all crates, without servers.
test-unit:
    cargo test --workspace --lib --bins

# Runs the integration tests whose name contains NAME, over a real PostgreSQL and Kafka.
test NAME='':
    cargo test -p amends --test integration -- {{NAME}}

# The same in containers, with the faults that only those have.
test-containers NAME='servers::':
    AMENDS_SERVERS=docker cargo test -p amends --features containers --test integration -- --include-ignored {{NAME}}

# Runs every test.
test-all:
    cargo test --workspace

# Starts the suite. Options go to `amends up`, for example `just run --fresh`.
run *OPTIONS:
    cargo run -- up {{OPTIONS}}

# Builds the binary for measuring, without LTO and incrementally: `target/measure/amends`.
measure:
    cargo build --profile measure -p amends --features jemalloc

# Audits the running suite. Options go to `amends audit`.
audit *OPTIONS:
    cargo run -- audit {{OPTIONS}}

# Writes the generated documents.
generate:
    cargo run -- generate

# Builds the documentation of the crates, with warnings as errors.
docs:
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps

# Runs everything that CI runs.
ci:
    bash .ci/run
