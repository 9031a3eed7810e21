# Entry points; the work is in scripts/. `make help` lists them.

HOST_ARCH := $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(shell uname -m)))
ARCH ?= $(HOST_ARCH)
HOST_BIN := $(CURDIR)/dist/kubesolo-update-$(HOST_ARCH)
# DESIGN: 1.25 MiB is the most that a release binary may have.
MAX_BYTES := 1310720

# In a container of scripts/Dockerfile.builder: its zig is taken instead of another download.
ifneq ($(BUILDER_TOOLS),)
$(shell mkdir -p .tools; [ -e .tools/zig ] || ln -sfn '$(BUILDER_TOOLS)/zig' .tools/zig)
endif

# Whole machines are in tests/vm_*.rs: they take longer than everything else, and tell what they do.
TESTS := $(basename $(notdir $(sort $(wildcard tests/*.rs))))
INTEGRATION := $(foreach t,$(filter-out vm_%,$(TESTS)),--test $(t))
MACHINES := $(foreach t,$(filter vm_%,$(TESTS)),--test $(t))
RUN_MACHINES = KUBESOLO_UPDATE_BIN=$(HOST_BIN) CUTS=$(CUTS) cargo test --locked $(MACHINES) -- --nocapture

# Tools that Debian 12 lacks are in .tools/bin; sgdisk and losetup are in sbin.
export PATH := $(CURDIR)/.tools/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help test test-fresh deps lint unit build build-all build-cross size integration test-vm reproducible oci-image agent-image \
	release upload-release builder-image builder-lock test-builder vm demo bench vendor clean

help:
	@echo 'make test                      everything that follows up to test-vm; what CI runs'
	@echo 'make lint                      format, clippy, docs, shellcheck, crate manifest, pipelines, Dockerfile, man page'
	@echo 'make unit                      unit tests'
	@echo 'make build [ARCH=amd64|arm64]  static release binary in dist/ (default: this machine'"'"'s)'
	@echo 'make build-all                 both of them'
	@echo 'make build-cross TARGET_ARCH=amd64|arm64  the one named, as other build systems ask for it'
	@echo 'make size                      size budget, and a first run of both binaries'
	@echo 'make integration               integration tests against a release build'
	@echo 'make test-vm [CUTS=500]        the virtual machines of tests/vm_*.rs; more power cuts than usual'
	@echo 'make reproducible              a build from the source archive of a release gives its bytes'
	@echo 'make oci-image ARGS=...        the OS as a container image (scripts/build-os-image.sh --help)'
	@echo 'make agent-image ARGS=...      the agent as a container image (scripts/build-agent-image.sh --help)'
	@echo 'make release [TAG=v1.2.3] [KEYS=FILE...]  what a release consists of, in dist/release/'
	@echo 'make upload-release TAG=v1.2.3 dist/release/ to the Gitea server (scripts/upload-release.sh --help)'
	@echo 'make builder-image BASE=IMAGE@sha256:DIGEST  the container that CI builds in (docs/pipelines.md)'
	@echo 'make builder-lock BASE=...     its Debian packages, as of today, into scripts/builder-packages.lock'
	@echo 'make test-builder              builds it, and the agent in it: the same bytes as in dist/'
	@echo 'make vm [IMAGE=FILE]           starts an image in QEMU, this terminal as its console'
	@echo 'make demo                      an update from end to end, on this machine'
	@echo 'make test-fresh [ARGS=...]     make demo and make test in a Debian made a minute ago (scripts/test-fresh.sh --help)'
	@echo 'make bench                     measurements against other tools'
	@echo 'make vendor                    crate sources into vendor/, for builds without network'
	@echo 'make clean                     removes what was built (tools and vendor/ stay)'

# From cheap to dear. All tools first: a machine that cannot have them says so at once.
# That a build from the sources gives the same bytes, tests/release.rs holds as well.
test: deps lint unit build-all size integration test-vm

deps:
	scripts/install-deps.sh --optional build lint test vm

lint:
	scripts/install-deps.sh lint
	scripts/lint.sh

unit:
	scripts/install-deps.sh build
	cargo test --locked --lib

build:
	scripts/install-deps.sh build
	scripts/build.sh --arch $(ARCH)

build-all:
	scripts/install-deps.sh build
	scripts/build.sh

build-cross:
	scripts/install-deps.sh build
	TARGET_ARCH=$(TARGET_ARCH) scripts/build-cross.sh

size: build-all
	scripts/install-deps.sh --optional build test
	scripts/smoke.sh --max-bytes $(MAX_BYTES) dist/kubesolo-update-amd64 dist/kubesolo-update-arm64

integration: build-all
	scripts/install-deps.sh --optional build test vm
	KUBESOLO_UPDATE_BIN=$(HOST_BIN) cargo test --locked $(INTEGRATION)

test-vm: build-all
	scripts/install-deps.sh --optional build test vm
	$(RUN_MACHINES)

reproducible: build-all
	scripts/install-deps.sh --optional build test
	scripts/release.sh --allow-dirty --output target/reproducible
	scripts/reproduce.sh --release target/reproducible

oci-image:
	scripts/install-deps.sh --optional test
	scripts/build-os-image.sh $(ARGS)

agent-image: build-all
	scripts/install-deps.sh --optional test
	scripts/build-agent-image.sh --agent-dir dist $(ARGS)

# TAG is the shell's, not make's: nothing in the name of a tag is a command. No compiler sees a signing key.
release: export TAG ?=
release:
	env -u SIGNING_KEY -u SIGNING_KEY_2 $(MAKE) build-all
	env -u SIGNING_KEY -u SIGNING_KEY_2 scripts/install-deps.sh build test
	scripts/with-keys.sh $(foreach k,$(KEYS),--key $(k)) -- scripts/release.sh $${TAG:+--tag "$$TAG"} $(ARGS)

upload-release: export TAG ?=
upload-release:
	scripts/upload-release.sh --tag "$$TAG" $(ARGS)

builder-image:
	scripts/build-builder.sh --base '$(BASE)' $(ARGS)

builder-lock:
	scripts/build-builder.sh --base '$(BASE)' --lock-only $(ARGS)

test-builder: build-all
	scripts/install-deps.sh --optional build test
	BUILDER_FULL=yes KUBESOLO_UPDATE_BIN=$(HOST_BIN) cargo test --locked --test builder

vm:
	scripts/install-deps.sh build vm
	scripts/build.sh --arch amd64
	scripts/vm.sh $(IMAGE)

# What no installation mends is seen before minutes of compiling. BINARY=FILE: a released agent, no compiler.
demo: export BINARY ?=
demo:
ifeq ($(BINARY),)
	@echo 'demo: installs what is missing, compiles the agent (3 minutes on 2 cores), shows an update (10 s).'
	@echo 'demo: make demo BINARY=FILE, with a released agent, compiles nothing.'
	@scripts/demo.sh --check
	scripts/install-deps.sh build demo
	scripts/build.sh --arch $(HOST_ARCH)
	scripts/demo.sh
else
	@scripts/demo.sh --check --binary "$$BINARY"
	scripts/install-deps.sh demo
	scripts/demo.sh --binary "$$BINARY"
endif

# ARGS="--only groups --memory" is its cheap part.
test-fresh:
	scripts/install-deps.sh fresh
	scripts/test-fresh.sh $(ARGS)

bench:
	scripts/install-deps.sh build bench
	scripts/build.sh --arch $(HOST_ARCH)
	scripts/bench.sh

vendor:
	scripts/install-deps.sh build
	scripts/vendor.sh

clean:
	rm -rf target dist .demo
