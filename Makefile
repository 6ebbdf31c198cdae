# What scripts and people call. Each target works on a fresh checkout, without questions, and a second time.
.DEFAULT_GOAL := help
.PHONY: help setup build release demo test bench lint docs fuzz clean
SHELL := /bin/sh

CARGO ?= cargo
# How long each fuzz target runs.
FUZZ_SECONDS ?= 10

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing (SoftHSM, Python and Node packages), or say what is
	.ci/setup

build: ## build everything, debug
	.ci/setup build
	$(CARGO) build --locked --workspace

release: ## build the programs as they ship
	.ci/setup build
	$(CARGO) build --locked --workspace --release

demo: ## the main job, end to end, on three SoftHSM tokens; leaves nothing running
	.ci/setup build tokens
	$(CARGO) build --locked --workspace --release
	"$${CARGO_TARGET_DIR:-target}/release/demo" </dev/null

test: ## set-up and every test
	.ci/setup
	.ci/test

bench: ## measure, beside raw figures of the same run
	.ci/setup build tokens
	.ci/setup bench || echo "make: without them no comparison with nginx" >&2
	$(CARGO) build --locked --workspace --release
	"$${CARGO_TARGET_DIR:-target}/release/bench" </dev/null

lint: ## format, clippy and the systemd units
	.ci/setup build
	$(CARGO) fmt --all --check
	.ci/names
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	deploy/systemd/check || [ $$? -eq 3 ]

docs: ## the documentation of the code, warnings denied
	.ci/setup build
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

fuzz: ## every fuzz target for FUZZ_SECONDS each
	.ci/setup fuzz
	.ci/fuzz $(FUZZ_SECONDS)

clean: ## remove what was built and installed below this folder
	$(CARGO) clean
	rm -rf tests/.cache
