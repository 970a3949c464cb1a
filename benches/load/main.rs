//! What `bench/load` and `bench/start` need beside the gateway: a store that is full, and clients that call at a pace.
//!
//! It is run by those scripts. `fill` makes groups, accounts and licences by the rooms' own operations, and writes the keys as
//! lines for `keybearer keys import`; `fire` sends the traffic and says what came of it.

mod client;
mod fill;
mod fire;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// `cargo bench` says this to whatever it runs.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a store of accounts, and a file of keys to import.
    Fill(fill::Arguments),
    /// Sends the traffic.
    Fire(fire::Arguments),
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match Arguments::parse().command {
        Command::Fill(arguments) => runtime.block_on(fill::run(&arguments)),
        Command::Fire(arguments) => runtime.block_on(fire::run(arguments)),
    }
}
