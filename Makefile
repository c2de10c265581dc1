# Halfkey. `make demo` shows it, `make test` checks it; both run on a fresh machine.

CARGO   ?= cargo
TARGET  := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := target/release
comma   := ,
AGENT   := target/$(TARGET)/agent/halfkey-agent

# Functions that came out as the same code are one: nothing compares their addresses. By lld, which is not rust's linker everywhere.
ONE_OF_EACH = $(if $(findstring -fuse-ld=lld,$(shell d=$$(mktemp -d) && echo 'fn main() {}' | \
	rustc - --print=link-args -o $$d/probe; rm -r $$d)),-C link-arg=-Wl$(comma)--icf=all)

# A static-pie: nothing of the host's C library at run time. --target keeps
# these flags away from build scripts and proc macros. The agent encrypts a few
# hundred bytes at each boot: small code is worth more there than vector code.
# A panic aborts, so nobody reads unwind tables: ours are not made, those of libraries are left out.
AGENT_RUSTFLAGS = -C target-feature=+crt-static -C force-unwind-tables=no \
	-C link-arg=-Wl,-z,pack-relative-relocs \
	-C link-arg=-Wl,-T,agent/no-unwind.ld -C link-arg=-Wl,--no-eh-frame-hdr $(ONE_OF_EACH) \
	--cfg sha2_backend="soft" --cfg sha2_backend_soft="compact" --cfg chacha20_backend="soft" \
	--cfg poly1305_backend="soft" --cfg curve25519_dalek_backend="serial"

# What the agent may have at most, in bytes: every initramfs carries it.
AGENT_MAX := 2900000

# libFuzzer's coverage passes are stable options; no nightly is needed.
FUZZ_RUSTFLAGS := --cfg fuzzing -C debug-assertions -C passes=sancov-module \
	-C llvm-args=-sanitizer-coverage-level=4 \
	-C llvm-args=-sanitizer-coverage-inline-8bit-counters \
	-C llvm-args=-sanitizer-coverage-pc-table \
	-C llvm-args=-sanitizer-coverage-trace-compares
# Runs of each target in `make test`, and seconds at most; `make fuzz FUZZ_RUNS=-1 FUZZ_SECONDS=3600` for an hour each.
FUZZ_RUNS    ?= 20000
FUZZ_SECONDS ?= 30

.PHONY: help demo test check style licences unit api fuzz scenarios scenario matrix replay bench dist servers packages packages-only packages-look \
	packages-test deps deps-build deps-unit deps-packages clean FORCE
.DEFAULT_GOAL := help

help:
	@echo 'make demo       boot a real Debian under OVMF and swtpm: enroll, unlock, refuse, revoke'
	@echo 'make test       every check: style, licences, unit, protocol, fuzz and virtual machine tests'
	@echo 'make dist       release binaries and the dracut module in dist/'
	@echo 'make packages   .deb and .rpm of agent, server and command line, from dist/ into dist/packages'
	@echo 'make bench      sizes and times next to Clevis, into dist/bench.json'
	@echo 'make deps       install what the above need, through the package manager'
	@echo
	@echo 'make check      style, lints and licences'
	@echo 'make unit       tests without virtual machines; needs a compiler and swtpm, installs no more than that'
	@echo '                CRATE=evidence for those of one crate, PROGRAMS=dist with the programs of make dist'
	@echo 'make api        schemathesis asks a real server all that docs/openapi.json says'
	@echo 'make fuzz       every fuzz target for a moment; FUZZ_RUNS=-1 FUZZ_SECONDS=3600 for an hour each'
	@echo 'make scenarios  the virtual machine tests of make test; make scenario NAME=cmdline for one, ON=debian13 on that,'
	@echo '                WITH="--console --keep --shell" to see, keep and sit at it; docs/scenarios.md has the names'
	@echo 'make matrix     all virtual machine tests on every distribution, into docs/matrix.md; resumes where it stopped;'
	@echo '                ON=testing for one column, the others stay'
	@echo 'make packages-test  installs, upgrades and removes the packages on Debian 12 and 13'
	@echo 'make replay     a boot by its firmware log: LOG=FILE, POLICY=FILE to hold against it, LEARN=flags of policy learn'

demo: deps dist
	$(RELEASE)/halfkey-qemu-tests demo

# Tests that run the programs run those that are shipped.
test:
	@MAKE='$(MAKE)' PROGRAMS=dist .ci/phases deps style licences dist packages-look unit fuzz scenarios

check: style licences

style: deps-unit
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

licences:
	.ci/deny

DIST_PROGRAMS := $(if $(filter dist,$(PROGRAMS)),HALFKEY_AGENT=$(CURDIR)/dist/halfkey-agent \
	HALFKEY_VERIFIER=$(CURDIR)/dist/halfkey-verifier HALFKEY_TENANT=$(CURDIR)/dist/halfkey)

unit: deps-unit $(if $(filter dist,$(PROGRAMS)),dist)
	$(DIST_PROGRAMS) .ci/tests $(CRATE)

# What stays of it is in target/schemathesis-*.
api: deps-unit
	$(CARGO) test --locked --workspace --test openapi -- --ignored --nocapture

fuzz: deps-build
	RUSTFLAGS='$(FUZZ_RUSTFLAGS)' $(CARGO) build --profile fuzz --locked -p halfkey-fuzz --target $(TARGET)
	fuzz/smoke target/$(TARGET)/fuzz $(FUZZ_RUNS) $(FUZZ_SECONDS)

scenarios: deps dist
	$(RELEASE)/halfkey-qemu-tests run test

# All there are on every distribution, however long that takes; the table goes to docs/matrix.md.
matrix: deps packages
	$(RELEASE)/halfkey-qemu-tests matrix $(if $(ON),--on $(ON))

# One of them, by name or number.
scenario:
	@[ -n '$(NAME)' ] || { echo 'error: which scenario?' >&2; \
		echo 'hint: make scenario NAME=.., one of docs/scenarios.md' >&2; exit 2; }
	@$(MAKE) --no-print-directory deps dist
	$(RELEASE)/halfkey-qemu-tests run $(NAME) $(if $(ON),--on $(ON)) $(WITH)

# A boot of which there is a firmware log, by the real agent and a real verifier.
replay:
	@[ -n '$(LOG)' ] || { echo 'error: which boot?' >&2; \
		echo 'hint: make replay LOG=a copy of /sys/kernel/security/tpm0/binary_bios_measurements' >&2; exit 2; }
	@for file in '$(LOG)' $(if $(POLICY),'$(POLICY)'); do [ -r "$$file" ] || { \
		echo "error: expected a file, found no $$file" >&2; exit 2; }; done
	@.ci/deps unit
	$(CARGO) run --quiet --locked -p halfkey-qemu-tests --bin halfkey-replay -- \
		$(if $(POLICY),--policy '$(POLICY)') '$(LOG)' $(if $(LEARN),-- $(LEARN))

bench: dist
	@.ci/deps bench
	$(CARGO) build --release --locked $(RELEASED) --bin halfkey-bench --bin halfkey-loadgen
	$(RELEASE)/halfkey-bench

# Cargo knows what is stale; make only copies.
dist: deps-build servers
	RUSTFLAGS='$(AGENT_RUSTFLAGS)' $(CARGO) build --profile agent --locked --target $(TARGET) -p halfkey-agent
	@mkdir -p dist
	@install -m 755 $(AGENT) $(RELEASE)/halfkey-verifier $(RELEASE)/halfkey dist/
	@rm -rf dist/55halfkey dist/hooks dist/share && cp -r dracut-module/55halfkey dracut-module/hooks agent/share dist/
	@size=$$(stat -c %s dist/halfkey-agent); [ "$$size" -le $(AGENT_MAX) ] || { \
		echo "dist/halfkey-agent: expected at most $(AGENT_MAX) bytes, found $$size" >&2; exit 1; }
	@ls -l dist | awk 'NR > 1 { printf "dist/%-18s %10d bytes\n", $$9, $$5 }'

# What is installed where: packaging/stage.
packages: dist packages-only

packages-only: deps-packages
	@.ci/packagers
	@rm -rf dist/packages
	@packaging/build dist dist/packages

# In `make test`, after dist.
packages-look: packages-only
	@packaging/look dist/packages

# On real systems, which it makes once.
packages-test: packages
	@VERSION=0.0.1 packaging/build dist target/packages/older >/dev/null
	@packaging/try target/packages/older dist/packages bookworm trixie

# One choice of packages, and so of features: with another all that they depend on is built again.
RELEASED := -p halfkey-verifier -p halfkey -p halfkey-qemu-tests -p halfkey-bench

servers: deps-build
	$(CARGO) build --release --locked $(RELEASED) --bin halfkey-verifier --bin halfkey --bin halfkey-qemu-tests

deps:
	@.ci/deps

deps-build deps-unit deps-packages:
	@.ci/deps $(@:deps-%=%)

clean:
	$(CARGO) clean
	rm -rf dist
