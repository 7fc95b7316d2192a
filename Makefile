# The two commands: `make demo` trains and compares the eight families; `make test` runs every check there is.
# `make bench` measures the speed on this machine and writes docs/performance.md.
.PHONY: demo test check bench clean

demo: .venv/demo
	.venv/bin/convatlas compare

test: .venv/test
	scripts/test

check: .venv/test
	scripts/check

.venv/demo: pyproject.toml constraints.txt scripts/install
	scripts/install look
	@touch $@

.venv/test: pyproject.toml constraints.txt scripts/install
	scripts/install test
	@touch $@ .venv/demo

bench: .venv/test
	.venv/bin/python benchmarks/write_performance.py

clean:
	rm -rf .venv
