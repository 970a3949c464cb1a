//! Behaviour through the real gateway: in this process, on real TLS sockets, with a clock that stands still.
//!
//! `gateway` starts one, `client` calls it, `wire` speaks bytes to it, `forge` signs what it should refuse, `published` waits
//! for its keys. Every ★ row of
//! the contract has its tests in `contract`; the other files are about one property each.

mod client;
mod forge;
mod gateway;
mod published;
mod wire;

mod attacks;
mod conduct;
mod contract;
mod endpoints;
mod faults;
mod forward_auth;
mod keys;
mod licence_documents;
mod notices;
mod oauth;
mod openapi;
mod patience;
mod plans;
mod proxy;
mod revocation;
mod rotation;
mod secrets;
mod tokens;
mod usage;
