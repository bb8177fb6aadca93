# `make test` and `make test-build` are all that testing needs, from a fresh clone: a Rust toolchain, a C compiler,
# Python 3.11 with venv, and make.

PYTHON ?= python3
VENV := .venv
VENV_READY := $(VENV)/.ready

# One selection for every debug build. Another one would unify the dependencies' features in another
# way, and so compile the AWS SDK, which takes minutes, a second time.
CARGO_SELECTION := --workspace --all-targets --locked

# The release build is for this machine's processor, so that `make test-build` can run it.
ARCHITECTURE := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86_64)

# SAM takes the build from target/lambda and from nowhere else.
unexport CARGO_TARGET_DIR

# Nothing here may reach a real account.
export AWS_ACCESS_KEY_ID := testing
export AWS_SECRET_ACCESS_KEY := testing
export AWS_DEFAULT_REGION := eu-west-1
export AWS_CONFIG_FILE := /dev/null
export AWS_SHARED_CREDENTIALS_FILE := /dev/null
unexport AWS_PROFILE AWS_SESSION_TOKEN AWS_REGION AWS_ENDPOINT_URL
export SAM_CLI_TELEMETRY := 0

# Where the Python tests find what was built. Without SAM_BOOTSTRAP, those of SAM's build are skipped.
export GUARD_BINARY := $(CURDIR)/target/debug/guard
export SIM_BINARY := $(CURDIR)/target/debug/sim
unexport SAM_BOOTSTRAP
test-build bench: export SAM_BOOTSTRAP := $(CURDIR)/.aws-sam/build/GuardFunction/bootstrap

# What went over the wire in the Rust tests: the Python tests compare it with AWS's API models.
export RECORDED_CALLS := $(CURDIR)/target/recorded-calls.jsonl

# The processes that run the Python tests. More than processors, as most tests wait for servers. `PYTEST_WORKERS=0`
# runs them one after the other.
PYTEST_WORKERS ?= 4

# Everything but what only the release build can show: that is `make test-build`.
.PHONY: test
test: rust-test $(VENV_READY) ## Run all tests, except those of the release build
	$(VENV)/bin/pytest tests -n $(PYTEST_WORKERS) --dist loadfile

# What .ci/run checks, without the Python tests and the release build. clippy-driver compiles as rustc does, so that
# the lints and the tests share one build.
.PHONY: check
check: export RUSTC_WORKSPACE_WRAPPER := clippy-driver
check: export CLIPPY_ARGS := -Dwarnings__CLIPPY_HACKERY__
check: ## Check format, lints and prose, and run the Rust tests: before each commit
	cargo fmt --all --check
	$(PYTHON) tests/prose.py
	$(MAKE) rust-test

.PHONY: help
help: ## Show the targets
	@sed -nE 's/^([a-z-]+):.* ## (.*)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F '|' '{ printf "%-13s %s\n", $$1, $$2 }'

# Makes the release build as SAM deploys it, which takes long the first time, and runs the tests that need it: the
# bootstrap works, survives a panic, and keeps within its memory. The simulator is the debug build.
.PHONY: test-build
test-build: rust-compile build ## Make the release build, and run the tests that need it
	$(VENV)/bin/pytest tests -m sam_build

# Also builds target/debug/guard and target/debug/sim, which the Python tests run. A few more
# threads than processors, as some tests wait for other processes.
.PHONY: rust-test
rust-test: export RUST_TEST_THREADS := 4
rust-test: export SIM_RECORD := $(RECORDED_CALLS)
rust-test: ## Run the Rust tests
	rm -f $(RECORDED_CALLS)
	cargo test $(CARGO_SELECTION)
	cargo test --workspace --doc --locked

# The model of the discard, with ten thousand random sequences rather than a thousand: about four minutes on two
# processors. GUARD_MODEL_SEED chooses others.
.PHONY: model
model: export GUARD_MODEL_SEQUENCES ?= 10000
model: ## Run ten thousand random sequences against the model of the discard
	cargo test $(CARGO_SELECTION) whatever_happens_the_guard_keeps_its_promises -- --nocapture

# All test disks made anew, whole Debians among them, looked at with other tools, and told by the guard. Takes Debian's
# packages of file system tools, which it names, and for some images root; a few minutes.
CORPUS ?= target/corpus
.PHONY: corpus
corpus: ## Make all test disks again, and read them
	$(PYTHON) disk/corpus/make.py $(CORPUS)
	$(PYTHON) disk/corpus/make.py $(CORPUS) --check
	GUARD_CORPUS=$(abspath $(CORPUS)) cargo test $(CARGO_SELECTION) corpus:: -- --nocapture

# The fuzzers of what reads disks, one after the other. RUSTC_BOOTSTRAP has the stable compiler do what otherwise only
# a nightly one does.
GUARD_FUZZ_SECONDS ?= 600
FUZZ_TOOLS := $(CURDIR)/target/fuzz-tools
.PHONY: fuzz
fuzz: $(FUZZ_TOOLS)/bin/cargo-fuzz ## Run the fuzzers of the disk reader, one after the other
	cd disk && for target in partitions ext4 xfs btrfs ntfs hive os_release; do \
		PATH="$(FUZZ_TOOLS)/bin:$$PATH" RUSTC_BOOTSTRAP=1 cargo fuzz run -s none $$target -- \
			-max_total_time=$(GUARD_FUZZ_SECONDS) -timeout=10 -rss_limit_mb=512 -max_len=512 || exit 1; \
	done

$(FUZZ_TOOLS)/bin/cargo-fuzz:
	cargo install cargo-fuzz --version 0.13.2 --locked --root $(FUZZ_TOOLS)

# Compiles what rust-test runs, and runs nothing.
.PHONY: rust-compile
rust-compile: ## Compile what rust-test runs
	cargo test $(CARGO_SELECTION) --no-run

# What `sam deploy` deploys. SAM finds cargo-lambda, and the zig that it links with, on the PATH. Where CI
# has clippy wrap the compiler of debug builds, this build is left alone.
.PHONY: build
build: $(VENV_READY) ## Make the release build, which `sam deploy` deploys
	@echo 'Building the function for $(ARCHITECTURE); the first time takes minutes.'
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" env -u RUSTC_WORKSPACE_WRAPPER -u CLIPPY_ARGS \
		sam build --parameter-overrides Architecture=$(ARCHITECTURE)

# What policies add to the function's start. Timing is no test: it depends on the machine.
.PHONY: bench
bench: build ## Measure the start time and the memory of the release build
	$(VENV)/bin/python benches/start.py

# The audit of 100,000 simulated AMIs, and its report. Compiles the command line in release, for minutes.
.PHONY: bench-audit
bench-audit: $(VENV_READY) ## Measure an audit of 100,000 simulated AMIs
	env -u RUSTC_WORKSPACE_WRAPPER -u CLIPPY_ARGS cargo build --release --locked -p ami-guard -p sim
	$(VENV)/bin/python benches/audit.py

$(VENV_READY): tests/requirements.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@
