# Everything a newcomer needs: `make demo`, `make test`. The rest of the knobs are cargo's own.

CARGO ?= cargo
# Options of `mimbox-lab demo`, for example DEMO="--size 256m --mode transparent".
DEMO ?=

# The lab makes network namespaces; who is not root builds as himself and runs it by sudo.
ifeq ($(shell id -u),0)
AS_ROOT :=
else
AS_ROOT := sudo -E
ifneq ($(MIMBOX_UNPRIVILEGED),1)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER = sudo -E
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER = sudo -E
endif
endif

.PHONY: all demo test bless bench counts lint setup clean-labs
all: setup
	$(CARGO) build --workspace --release

# Installs what is missing (Debian packages).
setup:
	./tools/setup.sh

# A real MPTCP client with two paths, a plain TCP server, and the box between them; checks everything it shows.
demo: setup
	$(CARGO) build --release -p mimbox-converter -p mimbox-tools --bins
	$(AS_ROOT) target/release/mimbox-lab demo $(DEMO)

# Instructions of a segment, units, properties, models, simulation, replay, and end to end on real packets.
test: setup counts
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace

# Writes the golden outputs of the recorded sessions and the table of goodput anew, after a change that was meant to change
# what the box sends.
bless:
	$(CARGO) run --quiet -p mimbox-tools --bin mimbox-lab -- replay --bless tests/replay
	$(CARGO) run --quiet -p mimbox-tools --bin mimbox-lab -- goodput --bless tests/goodput.txt

# What a forwarded frame costs.
bench: setup
	$(CARGO) bench --workspace --benches

# Whether a segment costs more instructions than the repository has on record.
counts: setup
	$(CARGO) test --release -p mimbox-tools --test counts

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

# Removes labs whose process was killed.
clean-labs:
	$(AS_ROOT) target/release/mimbox-lab down
