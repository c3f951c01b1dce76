# make demo, make test: all that a newcomer needs. Both use the debug profile (see Cargo.toml), so what
# one builds the other need not build again.
TARGET := $(or $(CARGO_TARGET_DIR),target)
REMIGE := $(TARGET)/debug/remige
BENCH_DATA ?= benches/asof/data
PRESET ?= S
ENGINES ?= duckdb,polars
RUNS ?= 3

.PHONY: help build demo test setup lint bench-asof clean-demo

help:
	@echo "make demo        build and run examples/flights.sql (first build: 10 minutes on 2 cores, then 40 seconds)"
	@echo "make test        set up what the tests need, run all of them"
	@echo "make lint        format check, clippy with warnings denied"
	@echo "make bench-asof  point-in-time joins beside DuckDB and Polars (release build; PRESET=S|M|MZ|L|XL)"
	@echo "make clean-demo  remove what the demo made"

build:
	@test -x $(REMIGE) || echo "Building Remige. The first build compiles about 420 crates: 10 minutes on 2 cores."
	cargo build --locked

demo: build
	scripts/demo.sh $(REMIGE)

setup:
	scripts/setup.sh

test: setup build
	cargo test --locked
	scripts/clients.sh $(REMIGE)

lint:
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

bench-asof: setup
	cargo build --locked --release
	test -f $(BENCH_DATA)/$(PRESET)/meta.json || .venv/bin/python benches/asof/gen.py --preset $(PRESET) --out $(BENCH_DATA)/$(PRESET)
	.venv/bin/python benches/asof/bench.py run --data $(BENCH_DATA)/$(PRESET) --engines $(ENGINES) --runs $(RUNS) \
	  --exec 'remige=env REMIGE=$(TARGET)/release/remige benches/asof/remige_exec.sh {data} {out} {threads}' \
	  --results $(BENCH_DATA)/results.jsonl
	.venv/bin/python benches/asof/bench.py report --results $(BENCH_DATA)/results.jsonl

clean-demo:
	rm -rf warehouse-demo examples/out
