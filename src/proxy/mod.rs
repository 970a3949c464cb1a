//! The proxy door: passes a permitted request on to an upstream, and the upstream's answer back (RFC 9110 §3.7, §7.6).

mod flow;
mod forward;
mod framing;
pub mod headers;
mod metered;
pub mod rewrite;
mod trace;
pub mod tunnel;
pub mod upstream;
pub mod websocket;

pub use flow::{Cut, Flows};
pub use forward::Proxy;
