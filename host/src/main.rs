//! The `busbar` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    busbar::cli::main(std::env::args_os())
}
