# Sourced by the scripts of this folder: where the tree, the tools' cache and the links to them are.
#
#   root    the tree
#   cache   what is fetched or built once and shared between trees, in folders named by version;
#           COPEPOD_TEST_CACHE moves it
#   tools   links to the tools that this tree's tests use; the harness looks nowhere else

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${COPEPOD_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/copepod-tests}
tools=${CARGO_TARGET_DIR:-$root/target}/tools
mkdir -p "$cache" "$tools"

# fail TEXT: one line on stderr, then the end.
fail() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# link NAME TARGET: makes tools/NAME mean TARGET, whole at any moment.
link() {
	ln -sfn "$2" "$tools/.$1.$$" && mv -fT "$tools/.$1.$$" "$tools/$1"
}

# sources FILE…: a short name for the contents of these files, for a cache folder's name.
sources() {
	cat "$@" | sha256sum | cut -c1-12
}
