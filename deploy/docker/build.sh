#!/bin/sh
# Compiles the workspace of CONTEXT in FOLDER, which outlives the build, and puts the programs into OUT.
set -eu
context=$1 folder=$2 out=$3
sources=$folder/sources
mkdir -p "$sources" "$out"

# Cargo goes by the time of a file's last change. In the context that is when it was checked out, so a second checkout's
# files can be older than what was built from the first one's, and be taken for built. Here a file is as old as its content.
folder_changed() { # migrations are read by a macro, and cargo does not see that the folder has one more
    case $1 in */migrations/*) touch "$sources/${1%/migrations/*}/src/lib.rs" ;; esac
}
cd "$sources"
find . -type f | while IFS= read -r file; do
    [ -e "$context/$file" ] || { rm "$file"; folder_changed "$file"; }
done
cd "$context"
find . -type f | while IFS= read -r file; do
    if [ ! -e "$sources/$file" ]; then
        mkdir -p "$sources/${file%/*}"
        cp "$file" "$sources/$file"
        folder_changed "$file"
    elif ! cmp -s "$file" "$sources/$file"; then
        cp "$file" "$sources/$file"
    fi
done

cd "$sources"
export CARGO_TARGET_DIR=$folder/target
services="order payment inventory shipping notification orchestrator"
# shellcheck disable=SC2046,SC2086 # words are meant
cargo build --locked --profile "$PROFILE" $(printf -- '-p %s ' $services) -p amends --no-default-features --bins
for program in amends $services; do
    # Here and not in the profile, so that profiles share what they compile of the dependencies.
    strip -o "$out/$program" "$folder/target/$PROFILE/$program"
done
