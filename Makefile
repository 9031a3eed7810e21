# Entry points; the work is in scripts/. `make help` prints the lines below that begin with "#:".

HOST_ARCH := $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(shell uname -m)))
# As other build systems name it.
TARGET_ARCH ?= $(HOST_ARCH)
ARCH ?= $(TARGET_ARCH)
HOST_BIN := $(CURDIR)/dist/kubesolo-update-$(HOST_ARCH)
# 1.4375 MiB is the most that a release binary may have (docs/decisions/0018).
MAX_BYTES := 1507328

# In a container of scripts/Dockerfile.builder: its zig is taken instead of another download.
ifneq ($(BUILDER_TOOLS),)
$(shell mkdir -p .tools; [ -e .tools/zig ] || ln -sfn '$(BUILDER_TOOLS)/zig' .tools/zig)
endif

# After a git pull that changes Cargo.lock, settings for the crates of the old one would stop every cargo.
ifneq ($(wildcard .cargo/config.toml),)
$(shell scripts/vendor.sh --mend)
endif

# Tools that Debian 12 lacks are in .tools/bin; sgdisk and losetup are in sbin.
export PATH := $(CURDIR)/.tools/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

# One program a need of the machine (docs/testing.md). LONG=--include-ignored: with the long tests, LONG=--ignored: these alone.
LONG ?=
MINUTES ?= 30
PROGRAMS := pure disk registry publish kubernetes release
RUN_TESTS = KUBESOLO_UPDATE_BIN=$(HOST_BIN) cargo test --locked --no-fail-fast

# The names of a tag and of a file are the shell's, as they stand: nothing in them is make's or a command.
ifneq ($(origin BINARY),undefined)
override BINARY := $(value BINARY)
export BINARY
endif
override TAG := $(value TAG)
export TAG

ifneq ($(filter-out --include-ignored --ignored,$(LONG)),)
$(error LONG is --include-ignored or --ignored, not '$(LONG)')
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help test test-all test-rest test-fresh deps deps-all build-host lint unit build build-all build-cross size integration test-grub test-vm \
	build-update-agent test-update-agent test-update reproducible oci-image agent-image release upload-release \
	builder-image builder-lock test-builder vm demo bench bench-delta bench-plot vendor clean

#: this text
help:
	@awk '/^#: / { text = substr($$0, 4); next } \
		text && /^[a-z-]+:/ { args = ""; at = index(text, " | "); sub(/:.*/, ""); \
			if (at) { args = " " substr(text, 1, at - 1); text = substr(text, at + 3) } \
			printf "make %-40s %s\n", $$0 args, text } { text = "" }' $(MAKEFILE_LIST)

# From cheap to dear. All tools first: a machine that cannot have them says so at once.
#: lint, unit tests, build, integration tests, GRUB's table, a whole machine of each kind (about 40 minutes on 2 cores)
test: deps lint unit size integration test-grub test-vm

#: everything: both architectures, the long tests, the builder's image, all whole machines with power cuts (over an hour)
test-all: export LONG = --include-ignored
test-all: deps-all lint unit size-all integration test-grub test-vm

#: [MINUTES=30] | as many of the long tests as fit, what changed lately first (scripts/test-rest.sh --help)
test-rest:
	@scripts/test-rest.sh --minutes '$(MINUTES)' --dry-run
	$(MAKE) build-all
	scripts/install-deps.sh --optional build test vm all extra
	KUBESOLO_UPDATE_BIN=$(HOST_BIN) scripts/test-rest.sh --minutes '$(MINUTES)'

#: [ARGS=...] | the README's two commands in an empty Debian, twice (scripts/test-fresh.sh --help)
test-fresh:
	scripts/install-deps.sh fresh
	scripts/test-fresh.sh $(ARGS)

deps:
	scripts/install-deps.sh --optional build lint test vm

deps-all:
	scripts/install-deps.sh --optional build lint test vm all extra

#: format, clippy, docs, shellcheck, crate manifest, pipelines, Dockerfile, man page
lint:
	scripts/install-deps.sh lint
	scripts/lint.sh

#: unit tests
unit:
	scripts/install-deps.sh build unit
	cargo test --locked --lib

#: [ARCH=amd64|arm64] | static release binary in dist/ (default: TARGET_ARCH, or this machine's architecture)
build:
	scripts/install-deps.sh build
	scripts/build.sh --arch $(ARCH)

# What runs here is for here, whatever TARGET_ARCH says.
build-host:
	scripts/install-deps.sh build
	scripts/build.sh --arch $(HOST_ARCH)

#: both of them
build-all:
	scripts/install-deps.sh build
	scripts/build.sh --arch amd64 --arch arm64

#: TARGET_ARCH=amd64|arm64 | the one named, as other build systems ask for it
build-cross:
	scripts/install-deps.sh build
	TARGET_ARCH=$(TARGET_ARCH) scripts/build-cross.sh

#: another name of build
build-update-agent: build

#: another name of unit and integration
test-update-agent: unit integration

#: another name of test-vm
test-update: test-vm

#: size budget, and a first run of this machine's binary
size: build-host
	scripts/install-deps.sh --optional build test
	scripts/smoke.sh --max-bytes $(MAX_BYTES) $(HOST_BIN)

#: the same of both binaries
size-all: build-all
	scripts/install-deps.sh --optional build test
	scripts/smoke.sh --max-bytes $(MAX_BYTES) dist/kubesolo-update-amd64 dist/kubesolo-update-arm64

#: [LONG=--include-ignored] | integration tests against a release build
integration: build-host
	scripts/install-deps.sh --optional build test vm
	-scripts/vendor.sh --fetch
	$(RUN_TESTS) $(foreach p,$(PROGRAMS),--test $(p)) -- $(LONG)

#: [LONG=--include-ignored] | GRUB alone, in QEMU
test-grub: build-host
	scripts/install-deps.sh --optional build test vm $(if $(LONG),extra)
	$(RUN_TESTS) --test grub -- $(LONG)

#: [LONG=--include-ignored] [CUTS=500] | whole machines in QEMU; more power cuts than usual
test-vm: $(if $(LONG),build-all,build-host)
	scripts/install-deps.sh --optional build test vm
	CUTS=$(CUTS) $(RUN_TESTS) --test vm -- $(LONG)

#: a build from the source archive of a release gives its bytes
reproducible: build-all
	scripts/install-deps.sh build test
	scripts/release.sh --allow-dirty --output target/reproducible
	scripts/reproduce.sh --release target/reproducible

#: ARGS=... | the OS as a container image (scripts/build-os-image.sh --help)
oci-image:
	scripts/install-deps.sh oci
	scripts/build-os-image.sh $(ARGS)

#: ARGS=... | the agent as a container image (scripts/build-agent-image.sh --help)
agent-image: build-all
	scripts/install-deps.sh oci
	scripts/licenses.sh
	scripts/build-agent-image.sh --agent-dir dist $(ARGS)

# No compiler sees a signing key.
#: [TAG=v1.2.3] [KEYS=FILE...] | what a release consists of, in dist/release/
release:
	env -u SIGNING_KEY -u SIGNING_KEY_2 $(MAKE) build-all
	env -u SIGNING_KEY -u SIGNING_KEY_2 scripts/install-deps.sh build release oci
	scripts/with-keys.sh $(foreach k,$(KEYS),--key $(k)) -- scripts/release.sh $${TAG:+--tag "$$TAG"} $(ARGS)

#: TAG=v1.2.3 | dist/release/ to the Gitea server (scripts/upload-release.sh --help)
upload-release:
	scripts/upload-release.sh --tag "$$TAG" $(ARGS)

#: BASE=IMAGE@sha256:DIGEST | the container that CI builds in (docs/pipelines.md)
builder-image:
	scripts/build-builder.sh --base '$(BASE)' $(ARGS)

#: BASE=... | its Debian packages, as of today, into scripts/builder-packages.lock
builder-lock:
	scripts/build-builder.sh --base '$(BASE)' --lock-only $(ARGS)

#: builds it, and the agent in it: the same bytes as in dist/
test-builder: build-all
	scripts/install-deps.sh build test all
	BUILDER_FULL=yes $(RUN_TESTS) --test release builder -- --include-ignored

#: [IMAGE=FILE] | starts an image in QEMU, this terminal as its console
vm:
	scripts/install-deps.sh $(if $(IMAGE),,build) vm
	$(if $(IMAGE),,scripts/build.sh --arch amd64)
	scripts/vm.sh $(IMAGE)

# What no installation mends is seen before minutes of compiling.
#: [BINARY=FILE] | an update from end to end, on this machine (BINARY: a released agent, nothing is compiled)
demo:
ifeq ($(origin BINARY),undefined)
	@echo 'demo: installs what is missing, compiles the agent (3 minutes on 2 cores), shows an update (10 s).'
	@echo 'demo: make demo BINARY=FILE, with a released agent, compiles nothing.'
	@scripts/demo.sh --check
	scripts/install-deps.sh build demo
	scripts/build.sh --arch $(HOST_ARCH)
	scripts/demo.sh
else
	@echo 'demo: installs what is missing, makes a disk image and two releases (10 s), then shows an update.'
	@scripts/demo.sh --check --binary "$$BINARY"
	scripts/install-deps.sh demo
	scripts/demo.sh --binary "$$BINARY"
endif

#: [ARGS=...] | measurements against other tools (scripts/bench.sh --help)
bench:
	scripts/install-deps.sh build bench
	scripts/build.sh --arch $(HOST_ARCH)
	scripts/bench.sh $(ARGS)

#: [ARGS=...] | what an update fetches of which a machine has most already (scripts/bench-delta.sh --help)
bench-delta:
	scripts/install-deps.sh build delta
	scripts/build.sh --arch $(HOST_ARCH)
	scripts/bench-delta.sh $(ARGS)

#: [ARGS=...] | docs/pictures/performance.svg: an update against its size, beside other ways (scripts/bench-plot.sh --help)
bench-plot:
	scripts/install-deps.sh build bench plot
	scripts/build.sh --arch $(HOST_ARCH)
	scripts/bench-plot.sh $(ARGS)

#: crate sources into vendor/, for builds without network
vendor:
	scripts/install-deps.sh build
	scripts/vendor.sh

#: removes what was built (tools and vendor/ stay)
clean:
	rm -rf target dist .demo
