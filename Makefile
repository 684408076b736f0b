# The only entry point, for people and for CI. `make` alone says what there is.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# Debian keeps ip and nft in sbin, which an ordinary account does not search; rustup's place may not be searched either.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
SETUP := tests/support/setup
# Runs its arguments in namespaces of their own: what tests and demo do to the network, they do in there.
SANDBOX := $(CURDIR)/tests/support/sandbox
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER = $(SANDBOX)
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER = $(SANDBOX)

# What a test says when it fails is enough; a backtrace through the test runner only hides it.
export RUST_BACKTRACE := 0

# `make test TESTS=restart` runs the tests with that in their name.
TESTS ?=
# How many leases `make bench` measures with.
SIZES ?= 1000,5000,20000,50000
# `make bench NOTRACK=5` measures what --notrack gains instead, in so many turns.
NOTRACK ?=
# `make bench KUBE=5000,20000` measures with so many Nodes of a Kubernetes cluster instead, beside flanneld where it can be built.
KUBE ?=
# How long `make soak` takes, roughly, such as 22m, which is all of it once, or 1h; and which family alone.
SOAK ?= 5m
FAMILY ?=
# How long `make fuzz` stays with each target.
FUZZ_SECONDS ?= 30

# What `make image` makes: for this architecture, under this name.
ARCH ?= $(if $(filter aarch64,$(shell uname -m)),arm64,amd64)
IMAGE ?=

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
UNITDIR ?= $(PREFIX)/lib/systemd/system

.PHONY: help build image demo playground test interop docker-test kube-test lint fmt bench soak fuzz docs doc install clean

help: ## say what each target does (this)
	@echo 'loden: a VXLAN overlay agent, a drop-in replacement for flanneld. Targets:'
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

build: ## build the binary: target/release/loden
	@$(SETUP) rust build
	cargo build --release -p loden

image: ## the container image as an archive: target/image/loden-ARCH.tar (ARCH=amd64 or arm64, IMAGE=name:tag)
	@$(SETUP) rust build
	@mkdir -p $(TARGET)/image
	@binary=$$(manifests/image/static $(ARCH)); manifests/image/archive "$$binary" $(TARGET)/image/loden-$(ARCH).tar $(IMAGE)

demo: ## several hosts on this machine, and the proof that they reach each other; leaves nothing behind
	@$(SETUP) rust build sandbox etcd
	cargo build --release -p loden -p demo
	@LODEN_BIN=$(TARGET)/release/loden $(SANDBOX) $(TARGET)/release/demo

playground: ## the demo's hosts, left up for you to try things on, until you leave
	@$(SETUP) rust build sandbox etcd
	cargo build --release -p loden -p demo
	@LODEN_BIN=$(TARGET)/release/loden $(SANDBOX) $(TARGET)/release/demo playground

test: ## all tests, in namespaces of their own, with and without root (TESTS=name for some)
	@$(SETUP) rust build sandbox etcd python cni
	cargo build --workspace --bins --tests
	LODEN_BIN=$(TARGET)/debug/loden cargo test --workspace --no-fail-fast -- $(TESTS) 2>&1 | tests/support/tally

lint: ## formatting, clippy, documentation, dependencies, scripts, links; all warnings are errors
	@$(SETUP) rust build lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --quiet
	tests/support/check-deps
	shellcheck $$(grep -lE '^#!/bin/(ba)?sh' -r .ci tests/support tests/kube manifests)
	tests/support/check-links

fmt: ## format the code
	@$(SETUP) rust
	cargo fmt --all

bench: ## the figures of docs/performance.md (SIZES=1000,5000,... leases)
	@$(SETUP) rust build sandbox etcd
	cargo build --release -p loden -p bench
	@FLANNELD_BIN=$(if $(KUBE),$$(tests/support/peers flanneld)) LODEN_BIN=$(TARGET)/release/loden $(SANDBOX) $(TARGET)/release/bench --sizes $(SIZES) $(if $(NOTRACK),--notrack $(NOTRACK)) $(if $(KUBE),--kube $(KUBE))

soak: ## break everything, again and again: the figures of docs/reliability.md (SOAK=1h for longer, FAMILY=one for one)
	@$(SETUP) rust build sandbox etcd python
	cargo build --release -p loden -p soak
	@LODEN_BIN=$(TARGET)/release/loden $(SANDBOX) $(TARGET)/release/soak "$(SOAK)" "$(FAMILY)"

# What is timed beside flannel's is the program that people run.
interop: ## beside a real flanneld, which it builds: a mixed mesh, takeover and back, its defects (FAMILY=one, or part of a name)
	@$(SETUP) rust build sandbox etcd flanneld cni
	@tests/support/peers flanneld >/dev/null
	@tests/support/peers flannel-cni >/dev/null
	cargo build --release -p loden
	cargo build -p interop
	@FLANNELD_BIN=$$(tests/support/peers flanneld) FLANNEL_CNI_BIN=$$(tests/support/peers flannel-cni) LODEN_BIN=$(or $(LODEN_BIN),$(TARGET)/release/loden) $(SANDBOX) $(TARGET)/debug/interop flanneld "$(FAMILY)"

docker-test: ## beside two real Docker daemons: containers across hosts and to the outside, with loden's options (FAMILY=part of a name)
	@$(SETUP) rust build sandbox etcd docker
	cargo build -p loden -p interop
	@LODEN_BIN=$(or $(LODEN_BIN),$(TARGET)/debug/loden) $(SANDBOX) $(TARGET)/debug/interop docker "$(FAMILY)"

KUBE_TEST := $(TARGET)/kube-test
kube-test: ## in a real Kubernetes cluster, whose parts it builds: pods, services, migration from flannel and back (FAMILY=one, or part of a name)
	@$(SETUP) rust build sandbox etcd kubernetes flanneld
	@for peer in kubernetes flanneld flannel-cni helm; do tests/support/peers $$peer >/dev/null; done
	cargo build -p kube-test
	@tests/kube/images/build $$(tests/support/peers flanneld) $$(tests/support/peers flannel-cni) $(KUBE_TEST)/images
	@binary=$${LODEN_BIN:-$$(manifests/image/static "" dev)}; manifests/image/archive "$$binary" $(KUBE_TEST)/images/loden.tar
	@rm -rf $(KUBE_TEST)/logs
	$(if $(FAMILY),,KUBE_APISERVER_BIN=$$(tests/support/peers kubernetes)/kube-apiserver cargo test --quiet -p lease --test store_contract kubernetes)
	@KUBERNETES_BIN=$$(tests/support/peers kubernetes) HELM_BIN=$$(tests/support/peers helm) \
		KUBE_IMAGES=$(KUBE_TEST)/images KUBE_LOGS=$(KUBE_TEST)/logs tests/kube/run $(TARGET)/debug/kube-test "$(FAMILY)"

fuzz: ## fuzz whatever parses what others wrote (FUZZ_SECONDS each; needs a nightly toolchain)
	@$(SETUP) rust build fuzz
	tests/support/fuzz $(FUZZ_SECONDS)

docs: ## write what is generated of docs/configuration.md: flags, fields of the network configuration
	@$(SETUP) rust build
	LODEN_WRITE_DOCS=1 cargo test --quiet -p loden --test docs -- what_is_generated

doc: ## the crates' documentation: target/doc
	@$(SETUP) rust build
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items

install: ## install what `make build` built: binary, flanneld link, systemd unit (PREFIX=/usr/local, DESTDIR=)
	@[[ -x $(TARGET)/release/loden ]] || $(MAKE) build
	@flanneld='$(DESTDIR)$(BINDIR)/flanneld'; \
	if [[ -e $$flanneld && $$(readlink "$$flanneld") != loden ]]; then \
		echo "install: $$flanneld is not ours: move it away first, or choose another PREFIX" >&2; exit 1; \
	fi
	install -D -m 755 $(TARGET)/release/loden '$(DESTDIR)$(BINDIR)/loden'
	ln -sfn loden '$(DESTDIR)$(BINDIR)/flanneld'
	install -d '$(DESTDIR)$(UNITDIR)'
	sed 's|@BINDIR@|$(BINDIR)|' manifests/systemd/loden.service.in > '$(DESTDIR)$(UNITDIR)/loden.service'
	chmod 644 '$(DESTDIR)$(UNITDIR)/loden.service'

clean: ## remove what was built
	cargo clean
	rm -rf tests/fuzz/target tests/fuzz/artifacts
