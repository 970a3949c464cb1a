#![forbid(unsafe_code)]
//! The `keybearer` program.
use keybearer::{cli, clock::SystemClock, config};
use std::sync::Arc;

#[tokio::main]
async fn main() {
    let source = cli::serve::Source {
        file: std::env::args().nth(1).map(Into::into),
        environment: config::environment().collect(),
        overrides: config::Overrides::default(),
    };
    if let Err(error) = cli::serve::serve(&source, Arc::new(SystemClock), &mut std::io::stderr()).await {
        eprintln!("error: {error}");
    }
}
