#!/usr/bin/env bash
# Builds a static `dl` for a release, tries it, and packs it with its checksum into target/release-files. What names the
# lines of the source goes into an archive of its own: debuggers, and backtraces, find it beside the program.
#
#   deploy/release.sh [TARGET]        x86_64-unknown-linux-musl if not given
#
# Needs the Rust target, a C compiler for it (Debian: musl-tools), and objcopy (binutils). Nothing is uploaded. FEATURES=sql adds the commands
# that read and write rows.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-x86_64-unknown-linux-musl}
features=${FEATURES:-}
out=target/release-files

fail() {
    echo "error: $*" >&2
    exit 1
}

installed=$(rustc --print sysroot)/lib/rustlib/$target
[ -d "$installed" ] || fail "the Rust target $target is not installed: rustup target add $target"
case $target in
*-musl)
    compiler=${CC:-musl-gcc}
    command -v "$compiler" >/dev/null || fail "there is no $compiler: install musl-tools, or set CC"
    export "CC_${target//-/_}=$compiler"
    ;;
esac
objcopy=${OBJCOPY:-objcopy}
command -v "$objcopy" >/dev/null || fail "there is no $objcopy: install binutils, or set OBJCOPY"
[ -z "$(git status --porcelain)" ] || fail "the tree is not clean: commit or stash first"

cargo build --release --locked --package dl --target "$target" --features "$features"
built=target/$target/release/dl
packed=target/$target/release-packed
rm -rf "$packed"
mkdir -p "$packed"
"$objcopy" --only-keep-debug --compress-debug-sections "$built" "$packed/dl.debug"
# The names of functions stay: they are what a report of a crash has.
"$objcopy" --strip-debug "$built" "$packed/dl"
(cd "$packed" && "$objcopy" --add-gnu-debuglink=dl.debug dl)
program=$packed/dl
version=$("$program" --version | cut -d' ' -f2)

# A static program names no loader and no library.
case $target in
*-musl)
    if ldd "$program" >/dev/null 2>&1 && ! ldd "$program" 2>&1 | grep -q -e 'statically linked' -e 'not a dynamic'; then
        fail "$program is not static: $(ldd "$program")"
    fi
    ;;
esac

# It works from an empty folder: a catalog, a table, a look.
try=$(mktemp -d)
trap 'rm -rf "$try"' EXIT
program=$(realpath "$program")
(cd "$try" && "$program" quickstart --quiet && "$program" list --catalog sqlite://quickstart/catalog.db)

mkdir -p "$out"
name=dl-$version-$target
# pack ARCHIVE WHAT…: what tar is to pack, from the folder of the program on.
pack() {
    local archive=$1
    shift
    tar --create --gzip --file "$out/$archive.tar.gz" --owner=0 --group=0 --sort=name \
        --mtime="@$(git log -1 --format=%ct)" --transform "s,^,$name/," --directory "$(dirname "$program")" "$@"
    (cd "$out" && sha256sum "$archive.tar.gz" >"$archive.tar.gz.sha256")
    echo "$out/$archive.tar.gz"
}
pack "$name" dl --directory "$PWD" LICENSE README.md CHANGELOG.md
pack "$name-symbols" dl.debug
