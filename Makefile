# Entry points; the work is in scripts/. `make help` lists them.

HOST_ARCH := $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(shell uname -m)))
ARCH ?= $(HOST_ARCH)
HOST_BIN := $(CURDIR)/dist/kubesolo-update-$(HOST_ARCH)
# DESIGN: 1.25 MiB is the most that a release binary may have.
MAX_BYTES := 1310720

# Whole machines are in tests/vm_*.rs: they take longer than everything else, and tell what they do.
TESTS := $(basename $(notdir $(sort $(wildcard tests/*.rs))))
INTEGRATION := $(foreach t,$(filter-out vm_%,$(TESTS)),--test $(t))
MACHINES := $(foreach t,$(filter vm_%,$(TESTS)),--test $(t))
RUN_MACHINES = KUBESOLO_UPDATE_BIN=$(HOST_BIN) CUTS=$(CUTS) cargo test --locked $(MACHINES) -- --nocapture

# Tools that Debian 12 lacks are in .tools/bin; sgdisk and losetup are in sbin.
export PATH := $(CURDIR)/.tools/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help build test test-vm vm demo bench lint unit integration vendor clean

help:
	@echo 'make build [ARCH=amd64|arm64]  static release binary in dist/ (default: this machine'"'"'s)'
	@echo 'make test                      everything: lint, unit, both builds, smoke, integration, virtual machines'
	@echo 'make lint                      format, clippy, docs, shellcheck, crate manifest'
	@echo 'make unit                      unit tests'
	@echo 'make integration               integration tests against a release build'
	@echo 'make vm [IMAGE=FILE]            starts an image in QEMU, this terminal as its console'
	@echo 'make test-vm [CUTS=500]        the virtual machines of tests/vm_*.rs; more power cuts than usual'
	@echo 'make demo                      an update from end to end, on this machine'
	@echo 'make bench                     measurements against other tools'
	@echo 'make vendor                    crate sources into vendor/, for builds without network'
	@echo 'make clean                     removes what was built (tools and vendor/ stay)'

build:
	scripts/install-deps.sh build
	scripts/build.sh --arch $(ARCH)

test:
	scripts/install-deps.sh build lint test vm
	scripts/lint.sh
	cargo test --locked --lib
	scripts/build.sh
	scripts/smoke.sh --max-bytes $(MAX_BYTES) dist/kubesolo-update-amd64 dist/kubesolo-update-arm64
	KUBESOLO_UPDATE_BIN=$(HOST_BIN) cargo test --locked $(INTEGRATION)
	$(RUN_MACHINES)

lint:
	scripts/install-deps.sh lint
	scripts/lint.sh

unit:
	cargo test --locked --lib

integration:
	scripts/install-deps.sh build test vm
	scripts/build.sh --arch $(HOST_ARCH)
	KUBESOLO_UPDATE_BIN=$(HOST_BIN) cargo test --locked $(INTEGRATION)

test-vm:
	scripts/install-deps.sh build test vm
	scripts/build.sh
	$(RUN_MACHINES)

vm:
	scripts/install-deps.sh build vm
	scripts/build.sh --arch amd64
	scripts/vm.sh $(IMAGE)

demo:
	scripts/install-deps.sh build demo
	scripts/build.sh --arch $(HOST_ARCH)
	scripts/demo.sh

bench:
	scripts/install-deps.sh build bench
	scripts/build.sh --arch $(HOST_ARCH)
	scripts/bench.sh

vendor:
	scripts/install-deps.sh build
	scripts/vendor.sh

clean:
	rm -rf target dist .demo
