# `make demo` does the main job, `make test` runs every test; `make help` lists the rest.
# Each target installs what is missing first (scripts/setup).

# Everything is built in the release profile: the reference evaluations of the tests are slow without
# optimisation, and one profile means one build of the dependencies.
PROFILE ?= --release
LOCKED ?= $(if $(filter true,$(CI)),--locked)
CARGO_ARGS = $(LOCKED) $(PROFILE)
# More words for cargo test, such as TEST_ARGS='--test pass_goldens -- bn-to-syncbn'.
TEST_ARGS ?=

.PHONY: help setup build demo ptxas test test-emulated test-long test-asan bench bench-quick fmt fmt-check lint tidy doctor
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 18

setup: ## install what the build needs and is missing
	@scripts/setup

build: setup ## build target/release/syncbn-compile and syncbn-opt
	cargo build $(CARGO_ARGS) --bins

demo: setup ## compile a BatchNorm network and train it with and without synchronisation
	cargo build $(CARGO_ARGS) --bin syncbn-compile
	@scripts/demo

ptxas: setup ## install NVIDIA's assembler, and what some tests need, where they can be had
	@scripts/setup --ptxas

test: ptxas ## run every test
	cargo test $(CARGO_ARGS) --workspace $(TEST_ARGS)

test-emulated: ptxas ## run every test of the GPU target, all networks included, under the emulator
	SYNCBN_EMULATED=all cargo test $(CARGO_ARGS) --test e2e $(TEST_ARGS) -- gpu:: networks::

# How many random networks, and the first one's seed.
RANDOM_GRAPHS ?= 50000
RANDOM_SEED ?= 1000

test-long: setup ## check the passes on many more random networks
	SYNCBN_RANDOM_GRAPHS=$(RANDOM_GRAPHS) SYNCBN_RANDOM_SEED=$(RANDOM_SEED) \
	cargo test $(CARGO_ARGS) --package syncbn-passes --test semantics random:: $(TEST_ARGS)

# The standard toolchain carries the sanitizer's runtime; RUSTC_BOOTSTRAP lets it take the unstable flag. Only the
# address sanitizer: the thread sanitizer needs an instrumented standard library and reports its locks otherwise.
test-asan: setup ## run the runtime's tests under the address sanitizer
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
	cargo test $(CARGO_ARGS) --package syncbn-runtime --target x86_64-unknown-linux-gnu --target-dir target/asan

# More words for benches/bench.py, such as BENCH_ARGS='--networks resnet50 --write'.
BENCH_ARGS ?=

bench: setup ## measure beside PyTorch, JAX, ONNX Runtime and OpenVINO: hours, and a download of 4 GB once
	cargo build $(CARGO_ARGS) --bin syncbn-compile
	@scripts/bench $(BENCH_ARGS)

bench-quick: setup ## the same for one network: 5 minutes
	cargo build $(CARGO_ARGS) --bin syncbn-compile
	@scripts/bench --size quick $(BENCH_ARGS)

fmt: setup ## format the sources
	cargo fmt --all

fmt-check: setup ## fail where a source is not formatted
	cargo fmt --all --check

lint: setup ## clippy, with warnings denied
	cargo clippy $(CARGO_ARGS) --workspace --all-targets -- -D warnings

tidy: setup ## check the habits of the house (dependency directions, headers, file lengths, ...)
	cargo run --quiet $(CARGO_ARGS) --package xtask -- tidy

doctor: setup ## say whether the tool-chain is complete
	cargo run --quiet $(CARGO_ARGS) --package xtask -- doctor
