# Thin: each verb calls a script or cargo.
.PHONY: quickstart build test bench

# Installs what is missing, builds, and boots a first VM.
quickstart:
	scripts/setup.sh run
	$(MAKE) --no-print-directory build
	target/release/banger run --rm -- uname -a

build:
	scripts/setup.sh build
	cargo build --release --package banger --package bangerd --package banger-shim
	cargo xtask agent

test:
	scripts/test.sh

bench:
	scripts/setup.sh run
	$(MAKE) --no-print-directory build
	cargo xtask bench --json
