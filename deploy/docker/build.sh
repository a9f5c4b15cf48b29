#!/bin/sh
# Compiles the workspace of CONTEXT in FOLDER, which outlives the build, and puts the programs into OUT.
set -eu
context=$1 folder=$2 out=$3
sources=$folder/sources
mkdir -p "$sources" "$out"

# Cargo decides by the time of a file's last change, which in the context is the time of the checkout. The files of a second
# checkout can be older than a build of the first one, and would count as built. So a file is copied only if its content has
# changed, and its copy is as old as its content.
cd "$sources"
find . -type f | while IFS= read -r file; do
    [ -e "$context/$file" ] || rm "$file"
done
cd "$context"
find . -type f | while IFS= read -r file; do
    if ! cmp -s "$file" "$sources/$file"; then
        mkdir -p "$sources/${file%/*}"
        cp "$file" "$sources/$file"
    fi
done

cd "$sources"
export CARGO_TARGET_DIR=$folder/target
services="order payment inventory shipping notification orchestrator"
# shellcheck disable=SC2046,SC2086 # words are meant
cargo build --locked --profile "$PROFILE" $(printf -- '-p %s ' $services) -p amends --no-default-features --features jemalloc --bins
for program in amends $services; do
    # Stripped here and not by the profile, so that profiles share the compiled dependencies.
    strip -o "$out/$program" "$folder/target/$PROFILE/$program"
done
