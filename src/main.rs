//! The `remige` program: see `remige --help`.

mod cli;

/// Lookups and small commits spend a sixth of their time in glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
