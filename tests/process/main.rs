//! The real program as its operator runs it: processes, signals, sockets, files and disks.
//!
//! Every test has an installation of its own (a folder, a configuration, free ports), and every wait polls a condition and
//! ends. What a machine cannot do is printed as SKIPPED with its reason.

mod backend;
mod bad_input;
mod caller;
mod cli_and_server;
mod durability;
mod files;
mod https;
mod installation;
mod licences;
mod output;
mod peers;
mod plans;
mod poll;
mod proxy;
mod proxy_ends;
mod scene;
mod shortage;
mod signals;
mod streams;
mod transfers;
mod usage;
