# The two commands: `make demo` trains and compares the eight families; `make test` runs every check there is.
# `make bench` measures the speed on this machine and writes docs/performance.md; `make soak` kills and resumes 500 times;
# `make fuzz` feeds every reader what nobody would write, for ten minutes of processor time; `make gpu` holds a GPU against the
# processor beside it, which `make test` cannot.
.PHONY: demo test check bench gpu soak fuzz clean

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

gpu: .venv/test
	.venv/bin/python benchmarks/gpu_checks.py

soak: .venv/test
	.venv/bin/python -m tests.training.kills --kills 500

fuzz: .venv/fuzz
	.venv/bin/python fuzz/run.py --minutes 10

.venv/fuzz: .venv/test
	scripts/install fuzz
	@touch $@ .venv/test

clean:
	rm -rf .venv
