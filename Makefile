# Thin: each verb calls a script or cargo.
.PHONY: quickstart build install uninstall deb test verify bench bench-create clients

# Installs what is missing, builds, and boots a first VM.
quickstart:
	scripts/setup.sh run
	$(MAKE) --no-print-directory build
	target/release/banger run --rm -- uname -a

build:
	scripts/setup.sh build
	cargo build --release --package banger --package bangerd --package banger-shim --package banger-root
	cargo xtask agent

# PREFIX (default /usr/local) and DESTDIR; uninstall removes what install added.
install:
	@scripts/install.sh install

uninstall:
	@scripts/install.sh uninstall

deb:
	@scripts/package-deb.sh

test:
	scripts/test.sh

# A live smoke with Firecracker in the lab: from create to nothing left.
verify:
	scripts/setup.sh test
	cargo xtask lab verify

bench:
	scripts/setup.sh test
	$(MAKE) --no-print-directory build
	cargo build --release --package banger-testkit --package bangerd-sim
	cargo build --release --package banger-tui --example frame_time
	cargo xtask bench --json

# make bench-create ARGS="--runs 20"
bench-create:
	scripts/setup.sh run
	$(MAKE) --no-print-directory build
	cargo xtask bench-create $(ARGS)

# Clients for Python and TypeScript from openapi/banger.json: make clients TO=FOLDER
clients:
	scripts/setup.sh clients
	scripts/api-clients/generate.sh $(or $(TO),target/clients)
