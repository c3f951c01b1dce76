# make demo, make test: all that a newcomer needs. Both use the debug profile (see Cargo.toml), so what
# one builds the other need not build again.
TARGET := $(or $(CARGO_TARGET_DIR),target)
REMIGE := $(TARGET)/debug/remige
BENCH_DATA ?= benches/asof/data
PRESETS ?= S M MZ MS MSTR MCOMP MT MH L L10 XL F50
ENGINES ?= duckdb,polars-inmem,scan,remige,remige-views
BENCH_RESULTS := $(BENCH_DATA)/results-$(shell date -u +%Y%m%dT%H%M).jsonl
BENCH_PAGE ?= docs/benchmarks/asof.md
BENCH_FLAGS ?=
RUNS ?= 3
ONLINE_DATA ?= benches/online/data
ONLINE_RESULTS := $(ONLINE_DATA)/results-$(shell date -u +%Y%m%dT%H%M).jsonl
ONLINE_PAGE ?= docs/benchmarks/online.md
WINDOW_DATA ?= benches/windows/data
WINDOW_RESULTS := $(WINDOW_DATA)/results-$(shell date -u +%Y%m%dT%H%M).jsonl
WINDOW_PAGE ?= docs/benchmarks/windows.md
WINDOW_PRESETS ?= W-M W-Z W-X W-10 W-10X
ROWS ?= 1000000
BIG_ROWS ?= 10000000

.PHONY: help build demo test setup lint bench-asof bench-online bench-windows clean-demo

help:
	@echo "make demo        build and run examples/flights.sql (first build: 10 minutes on 2 cores, then 40 seconds)"
	@echo "make test        set up what the tests need, run all of them"
	@echo "make lint        format check, clippy with warnings denied"
	@echo "make bench-asof  point-in-time joins beside DuckDB and Polars (release build; PRESETS=\"S M\", all: 20 GB of disk, an hour or more)"
	@echo "make bench-online  the online store beside raw Redis and Feast (release build; an hour with BIG_ROWS=10000000 and 10 GB of memory for Feast; ROWS, RUNS, BIG_ROWS=0)"
	@echo "make bench-windows  windowed aggregates beside DuckDB, Polars and DataFusion (release build; half an hour)"
	@echo "make clean-demo  remove what the demo made"

build:
	@test -x $(REMIGE) || echo "Building Remige. The first build compiles about 420 crates: 10 minutes on 2 cores."
	cargo build --locked

demo: build
	scripts/demo.sh $(REMIGE)

setup:
	scripts/setup.sh

test: setup build
	scripts/rust_tests.sh
	scripts/clients.sh $(REMIGE)

lint:
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

bench-asof: setup
	cargo build --locked --release
	.venv/bin/python benches/asof/bench.py run --presets "$(PRESETS)" --data-dir $(BENCH_DATA) --engines $(ENGINES) --runs $(RUNS) \
	  --remige $(TARGET)/release/remige --results $(BENCH_RESULTS) $(BENCH_FLAGS)
	.venv/bin/python benches/asof/bench.py report --results $(BENCH_RESULTS) --out $(BENCH_PAGE)

bench-online: setup
	benches/online/setup.sh
	cargo build --locked --release --bin remige --example online_client
	.venv/bin/python benches/online/bench.py run --remige $(TARGET)/release/remige --client $(TARGET)/release/examples/online_client \
	  --rows $(ROWS) --big-rows $(BIG_ROWS) --runs $(RUNS) --data-dir $(ONLINE_DATA) --results $(ONLINE_RESULTS) $(BENCH_FLAGS)
	.venv/bin/python benches/online/bench.py report --results $(ONLINE_RESULTS) --out $(ONLINE_PAGE)

bench-windows: setup
	cargo build --locked --release
	.venv/bin/python benches/windows/bench.py run --presets "$(WINDOW_PRESETS)" --data-dir $(WINDOW_DATA) --runs $(RUNS) \
	  --remige $(TARGET)/release/remige --results $(WINDOW_RESULTS) $(BENCH_FLAGS)
	.venv/bin/python benches/windows/serving.py $(TARGET)/release/remige --data-dir $(WINDOW_DATA) --runs $(RUNS) --results $(WINDOW_RESULTS)
	.venv/bin/python benches/windows/bench.py report --results $(WINDOW_RESULTS) --out $(WINDOW_PAGE)

clean-demo:
	rm -rf warehouse-demo examples/out
