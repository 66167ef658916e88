#!/bin/sh
# Installs what building, the lab and the tests need beyond Rust and make, on Debian 12 and its relatives.
# Does nothing when everything is there already.
set -eu

# A program and the Debian package that has it.
programs="
cc gcc
clang clang
llvm-objdump llvm
ip iproute2
tc iproute2
ss iproute2
ethtool ethtool
nft nftables
setpriv util-linux
curl curl
mptcpize mptcpize
tcpdump tcpdump
tshark tshark
strace strace
valgrind valgrind
"
# A file and the Debian package that has it.
files="
/usr/include/bpf/bpf_helpers.h libbpf-dev
/usr/include/linux/bpf.h linux-libc-dev
/usr/include/stdio.h libc6-dev
"

# Debian keeps some of the programs where an ordinary user's PATH does not look.
PATH="$PATH:/usr/sbin:/sbin"
missing=""
while read -r program package; do
	[ -z "$program" ] || command -v "$program" >/dev/null 2>&1 || missing="$missing $package"
done <<LIST
$programs
LIST
while read -r file package; do
	[ -z "$file" ] || [ -e "$file" ] || missing="$missing $package"
done <<LIST
$files
LIST
[ -n "$missing" ] || exit 0

packages=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
if ! command -v apt-get >/dev/null 2>&1; then
	echo "setup: this system has no apt-get; install by hand what Debian calls: $packages" >&2
	exit 1
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		echo "setup: run as root: apt-get install $packages" >&2
		exit 1
	fi
	as_root="sudo"
fi
echo "setup: installing $packages"
# Without this, installing tshark would stop to ask whether ordinary users may capture.
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get -q update
# shellcheck disable=SC2086 # a list of words
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $packages
