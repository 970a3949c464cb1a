#![forbid(unsafe_code)]
//! Keybearer turns an API key (or username and password) into a short-lived JSON Web Token and guards APIs with it.
//!
//! The rooms are named after the domain and stand on floors; imports go down only (`ARCHITECTURE.md`).

// floor 0: words
pub mod clock;
pub mod ids;
pub mod persist;
pub mod problem;
pub mod random;
pub mod secret;
// floor 1: rooms
pub mod accounts;
pub mod authorities;
pub mod change;
pub mod client_addr;
pub mod credentials;
pub mod groups;
pub mod keys;
pub mod licences;
pub mod limits;
pub mod notices;
pub mod plans;
pub mod repositories;
pub mod revocations;
pub mod routes;
pub mod signing;
pub mod telemetry;
pub mod tokens;
pub mod usage;
// floor 2: decision
pub mod access;
pub mod exchange;
pub mod openapi;
pub mod registry;
pub mod webhook;
// floor 3: backends
pub mod store;
// floor 4: doors
pub mod forward_auth;
pub mod me;
pub mod oauth;
pub mod portal;
pub mod proxy;
pub mod resources;
// floor 5: assembly
pub mod cli;
pub mod config;
pub mod server;
pub mod tls;
