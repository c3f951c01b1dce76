//! The `remige` program: see `remige --help`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
