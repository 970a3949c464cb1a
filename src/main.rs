#![forbid(unsafe_code)]
//! The `keybearer` program: hands the process to the command line.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use keybearer::clock::SystemClock;
use keybearer::{cli, config};

#[tokio::main]
async fn main() -> ExitCode {
    let process = cli::Process {
        stdin: &mut io::stdin(),
        stdout: &mut io::stdout(),
        stderr: &mut io::stderr(),
        env: config::environment().collect(),
        ask: &mut cli::ask,
        clock: Arc::new(SystemClock),
    };
    cli::run(std::env::args_os(), process).await.into()
}
