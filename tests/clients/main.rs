//! Real libraries and servers of others, unmodified, at the real gateway over TLS: README.md has the table.
//!
//! `scene` is the gateway and its customers. `script` runs a script in the language of its library; `oauth` are the clients
//! and `rotation` the verifiers that are libraries. `servers` starts a server; `envoy`, `haproxy` and `apache` are those.
//! `table` holds the README against all of it. What is not installed is printed as SKIPPED.

#[path = "../it/client.rs"]
#[expect(dead_code, reason = "tests/it uses all of it")]
mod client;
#[path = "../it/forge.rs"]
mod forge;
#[path = "../it/gateway.rs"]
#[expect(dead_code, reason = "tests/it uses all of it")]
mod gateway;
#[path = "../peers/program.rs"]
mod program;
#[path = "../it/published.rs"]
mod published;

mod apache;
mod envoy;
mod haproxy;
mod oauth;
mod rotation;
mod scene;
mod script;
mod servers;
mod table;
