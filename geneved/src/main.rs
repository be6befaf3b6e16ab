//! `geneved`: the daemon and its command line in one program.

use std::process::ExitCode;

fn main() -> ExitCode {
    geneved::cli::main(std::env::args_os())
}
