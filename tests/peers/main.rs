//! Real proxies in front of a real API, with the gateway as the judge of every request.
//!
//! Each proxy is started with its file of `config/examples`, filled in with this run's ports and folders, and one table is
//! run through all of them. `program` starts and ends a process, `proxies` knows the proxies, `keybearer` is the judge,
//! `api` records what reaches it, `caller` is the client, `table` is what must hold. A proxy that is not installed is
//! printed as SKIPPED. `registry` is another matter: a registry of container images that takes its tokens from the gateway.

#[path = "../it/client.rs"]
#[expect(dead_code, reason = "tests/it uses all of it")]
mod client;
#[path = "../it/forge.rs"]
#[expect(dead_code, reason = "tests/it uses all of it")]
mod forge;
#[path = "../it/gateway.rs"]
#[expect(dead_code, reason = "tests/it uses all of it")]
mod gateway;

mod api;
mod caller;
mod keybearer;
mod program;
mod proxies;
mod registry;
mod relay;
mod table;

use proxies::Kind;

macro_rules! plays {
    ($($name:ident: $kind:expr,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            table::play($kind).await;
        }
    )*};
}

plays! {
    nginx_lets_through_what_it_should_and_nothing_else: Kind::Nginx,
    nginx_does_so_by_socket: Kind::NginxBySocket,
    caddy_lets_through_what_it_should_and_nothing_else: Kind::Caddy,
    caddy_does_so_by_socket: Kind::CaddyBySocket,
    caddy_of_the_compose_example_does_so: Kind::Compose,
    haproxy_lets_through_what_it_should_and_nothing_else: Kind::Haproxy,
    haproxy_does_so_by_socket: Kind::HaproxyBySocket,
    envoy_lets_through_what_it_should_and_nothing_else: Kind::Envoy,
    envoy_does_so_by_socket: Kind::EnvoyBySocket,
    envoy_does_so_by_grpc: Kind::EnvoyGrpc,
    traefik_lets_through_what_it_should_and_nothing_else: Kind::Traefik,
}

/// Every proxy that asks over TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_proxy_asks_an_impostor() {
    let mut asked = Vec::new();
    for kind in [Kind::Nginx, Kind::Caddy, Kind::Haproxy, Kind::Envoy, Kind::EnvoyGrpc, Kind::Traefik] {
        asked.extend(table::impostors(kind).await);
    }
    assert!(asked.is_empty(), "{asked:#?}");
}
