//! What each setting may be. Every struct is taken apart field by field, so that a setting a room adds cannot be forgotten.

use std::time::Duration;

use super::claims::{Claim, read_claim};
use super::domain::{host_name, issuer, log_filter, network, realm};
use super::plans::{PlanSection, read_plan, read_quotas};
use super::reader::Section;
use super::repositories::{Registry, Repository, read_registry, read_repository};
use super::routing::{Route, read_forward_auth, read_route};
use super::upstreams::{Upstream, read_upstream};
use super::values::{
    DAY, Given, HOUR, MINUTE, Read, SECOND, address, boolean, duration, number, one_of, one_of_numbers, or_zero,
    parsed, path, size, text,
};
use super::{Config, StoreKind};
use crate::groups::demo;
use crate::limits::Rate;
use crate::server::{ForwardedHeader, PlaintextCredentials};
use crate::telemetry::Format;
use crate::{access, credentials, licences, notices, server, signing, telemetry, tls, tokens, usage, webhook};

/// What was read of the lists of sections: each entry as far as it could be read.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// What the repositories are in.
    pub registry: Registry,
    pub repositories: Vec<Repository>,
    pub claims: Vec<Claim>,
    pub upstreams: Vec<Upstream>,
    pub plans: Vec<PlanSection>,
    /// `None` when no list was given.
    pub routes: Option<Vec<Route>>,
}

/// Reads everything into `config` but the lists, which are returned.
pub(super) fn read(root: &mut Section, config: &mut Config) -> Lists {
    let Config {
        data_dir,
        key_prefix,
        store,
        server,
        limits,
        tls,
        access,
        tokens,
        signing,
        credentials,
        demo,
        logging,
        licences,
        notices,
        webhook,
        usage,
        quotas,
        plans: _,
        forward_auth,
        image_registry: _,
        upstreams: _,
        routes: _,
    } = config;
    const STORES: &[(&str, StoreKind)] = &[("sqlite", StoreKind::Sqlite), ("memory", StoreKind::Memory)];
    root.read("data_dir", data_dir, path("\"/var/lib/keybearer\""));
    root.read("key_prefix", key_prefix, parsed("a key prefix", "\"kb\""));
    root.read("store", store, one_of(STORES, "\"sqlite\""));
    root.section("server", |section| read_server(section, server));
    root.section("limits", |section| read_limits(section, limits));
    root.section("tls", |section| read_tls(section, tls));
    root.section("access", |section| read_access(section, access));
    root.section("tokens", |section| read_tokens(section, tokens));
    root.section("signing", |section| read_signing(section, signing));
    root.section("credentials", |section| read_credentials(section, credentials));
    root.section("demo", |section| read_demo(section, demo));
    root.section("logging", |section| read_logging(section, logging));
    root.section("licences", |section| {
        let licences::Settings { vendor_keys } = licences;
        section.list("vendor_keys", vendor_keys, parsed("a vendor's public key", ""));
    });
    root.section("notices", |section| read_notices(section, notices, webhook));
    root.section("usage", |section| read_usage(section, usage));
    root.section("quotas", |section| read_quotas(section, quotas));
    root.section("forward_auth", |section| read_forward_auth(section, forward_auth));
    let (mut registry, mut repositories) = (Registry::default(), Vec::new());
    root.section("image_registry", |section| read_registry(section, &mut registry));
    root.sections("repositories", |section| repositories.push(read_repository(section)));
    let mut plans = Vec::new();
    root.sections("plans", |section| plans.push(read_plan(section)));
    let (mut claims, mut upstreams, mut routes) = (Vec::new(), Vec::new(), Vec::new());
    root.sections("claims", |section| claims.push(read_claim(section)));
    root.sections("upstreams", |section| upstreams.push(read_upstream(section)));
    let has_routes = root.sections("routes", |section| routes.push(read_route(section)));
    Lists { registry, repositories, claims, upstreams, plans, routes: has_routes.then_some(routes) }
}

fn read_server(section: &mut Section, settings: &mut server::Settings) {
    const POLICIES: &[(&str, PlaintextCredentials)] =
        &[("report", PlaintextCredentials::Report), ("revoke", PlaintextCredentials::Revoke)];
    let server::Settings { listen, admin_listen, shutdown_grace, plaintext_credentials, behind_proxy } = settings;
    section.read("listen", listen, address("\"127.0.0.1:8443\""));
    section.read("admin_listen", admin_listen, address("\"127.0.0.1:8444\""));
    section.read("shutdown_grace", shutdown_grace, duration(Duration::ZERO..=HOUR, "\"20s\""));
    section.read("plaintext_credentials", plaintext_credentials, one_of(POLICIES, "\"report\""));

    section.section("behind_proxy", |section| {
        const HEADERS: &[(&str, ForwardedHeader)] = &[
            ("either", ForwardedHeader::Either),
            ("x-forwarded", ForwardedHeader::XForwarded),
            ("forwarded", ForwardedHeader::Forwarded),
        ];
        let (mut listen, mut trusted, mut header) = (None, Vec::new(), ForwardedHeader::default());
        section.read_some("listen", &mut listen, address("\"127.0.0.1:8080\""));
        section.list("trusted", &mut trusted, network);
        section.read("header", &mut header, one_of(HEADERS, "\"x-forwarded\""));
        if section.is_given() {
            section.require("listen", "write the address to listen on, as in listen = \"127.0.0.1:8080\"");
            section.require("trusted", "write the load balancer's networks, as in trusted = [\"10.0.0.0/8\"]");
            *behind_proxy = listen.map(|listen| server::BehindProxy { listen, trusted, header });
        }
    });
}

fn read_limits(section: &mut Section, settings: &mut server::Limits) {
    const MOST_CONNECTIONS: usize = 1_000_000;
    // Zero would refuse every client, and no limit at all would let one client hold a connection for ever.
    let timeout = |example| duration(Duration::from_millis(100)..=HOUR, example);
    let server::Limits {
        connections,
        connections_per_address,
        header_bytes,
        body_bytes,
        handshake_timeout,
        header_timeout,
        idle_timeout,
        body_timeout,
        request_timeout,
        write_timeout,
        http2_streams,
    } = settings;
    section.read("connections", connections, number(1..=MOST_CONNECTIONS, "20000"));
    section.read("connections_per_address", connections_per_address, number(1..=MOST_CONNECTIONS, "1000"));
    section.read("header_bytes", header_bytes, size(4 << 10..=1 << 20, "\"32KiB\""));
    section.read("body_bytes", body_bytes, size(1 << 10..=64 << 20, "\"64KiB\""));
    section.read("handshake_timeout", handshake_timeout, timeout("\"10s\""));
    section.read("header_timeout", header_timeout, timeout("\"10s\""));
    section.read("idle_timeout", idle_timeout, timeout("\"60s\""));
    section.read("body_timeout", body_timeout, timeout("\"30s\""));
    section.read("request_timeout", request_timeout, timeout("\"30s\""));
    section.read("write_timeout", write_timeout, timeout("\"30s\""));
    section.read("http2_streams", http2_streams, number(1..=10_000, "128"));
}

fn read_tls(section: &mut Section, settings: &mut tls::Settings) {
    let tls::Settings { certificate, private_key, names } = settings;
    section.read_some("certificate", certificate, path("\"/etc/keybearer/tls.pem\""));
    section.read_some("private_key", private_key, path("\"/etc/keybearer/tls.key\""));
    section.list("names", names, host_name);
}

fn read_access(section: &mut Section, settings: &mut access::Settings) {
    const PARAMETERS: &[(&str, bool)] = &[("refuse", false), ("allow", true)];
    let access::Settings { realm: name, contact, path_parameters, stream_grace } = settings;
    section.read("realm", name, realm);
    section.read_some("contact", contact, text(1..=256, "\"sales@example.com\""));
    section.read("path_parameters", path_parameters, one_of(PARAMETERS, "\"refuse\""));
    section.read("stream_grace", stream_grace, duration(Duration::ZERO..=DAY, "\"30s\""));
}

fn read_tokens(section: &mut Section, settings: &mut tokens::Settings) {
    let tokens::Settings { issuer: url, audience, lifetime, leeway, not_before_slack, max_live, claims: _ } = settings;
    section.read("issuer", url, issuer);
    section.one_or_more("audience", audience, text(1..=512, "\"https://api.example.com\""));
    section.read("lifetime", lifetime, duration(SECOND..=30 * DAY, "\"1h\""));
    section.read("leeway", leeway, duration(Duration::ZERO..=5 * MINUTE, "\"30s\""));
    section.read("not_before_slack", not_before_slack, duration(Duration::ZERO..=5 * MINUTE, "\"2s\""));
    section.read("max_live", max_live, number(1..=100_000_000, "1000000"));
}

fn read_signing(section: &mut Section, settings: &mut signing::Settings) {
    let signing::Settings { private_key_file, algorithm, rsa_bits, rotate_every, publish_ahead, master_key_file } =
        settings;
    section.read("algorithm", algorithm, parsed("an algorithm", "\"RS256\""));
    section.read_some("private_key_file", private_key_file, path("\"/etc/keybearer/signing.pem\""));
    section.read("rsa_bits", rsa_bits, one_of_numbers(&[2048, 3072, 4096], "2048"));
    section.read("rotate_every", rotate_every, or_zero(duration(2 * HOUR..=3650 * DAY, "\"30d\"")));
    section.read("publish_ahead", publish_ahead, duration(signing::LEAST_PUBLISH_AHEAD..=30 * DAY, "\"24h\""));
    section.read_some("master_key_file", master_key_file, path("\"/etc/keybearer/master.key\""));
}

fn read_credentials(section: &mut Section, settings: &mut credentials::Settings) {
    let credentials::Settings {
        argon2_memory_kib,
        argon2_iterations,
        argon2_parallelism,
        hashing_threads,
        hashing_queue,
        cache_ttl,
        cache_size,
        failures_per_address,
        failures_per_user,
        failures_in_all,
    } = settings;
    // argon2's own bounds depend on one another, so `checks` asks argon2.
    section.read("argon2_memory_kib", argon2_memory_kib, number(1..=u32::MAX, "19456"));
    section.read("argon2_iterations", argon2_iterations, number(1..=u32::MAX, "2"));
    section.read("argon2_parallelism", argon2_parallelism, number(1..=u32::MAX, "1"));
    section.read("hashing_threads", hashing_threads, number(0..=1024, "2"));
    section.read("hashing_queue", hashing_queue, number(1..=100_000, "64"));
    section.read("cache_ttl", cache_ttl, duration(SECOND..=HOUR, "\"60s\""));
    section.read("cache_size", cache_size, number(1..=100_000_000, "100000"));
    section.read("failures_per_address", failures_per_address, rate());
    section.read("failures_per_user", failures_per_user, rate());
    section.read("failures_in_all", failures_in_all, rate());
}

fn read_demo(section: &mut Section, settings: &mut demo::Settings) {
    let demo::Settings { enabled, token_lifetime, requests_per_address, tokens_per_address, plan } = settings;
    section.read("enabled", enabled, boolean);
    section.read("token_lifetime", token_lifetime, duration(MINUTE..=30 * DAY, "\"24h\""));
    section.read("requests_per_address", requests_per_address, rate());
    section.read("tokens_per_address", tokens_per_address, rate());
    section.read_some("plan", plan, parsed("a plan's id", "\"trial\""));
}

fn read_logging(section: &mut Section, settings: &mut telemetry::Settings) {
    const FORMATS: &[(&str, Format)] = &[("text", Format::Text), ("json", Format::Json)];
    let telemetry::Settings { format, level, requests } = settings;
    section.read("format", format, one_of(FORMATS, "\"json\""));
    section.read("level", level, log_filter);
    section.read("requests", requests, boolean);
}

fn read_notices(section: &mut Section, settings: &mut notices::Settings, webhook: &mut Option<webhook::Settings>) {
    let notices::Settings { before_end } = settings;
    section.list("before_end", before_end, duration(MINUTE..=366 * DAY, "[\"30d\", \"7d\", \"1d\"]"));
    let (mut target, mut secret_file, mut ca_file) = (None, None, None);
    section.read_some("webhook", &mut target, parsed("a webhook", "\"https://hooks.example.com/keybearer\""));
    section.read_some("secret_file", &mut secret_file, path("\"/etc/keybearer/webhook.secret\""));
    section.read_some("ca_file", &mut ca_file, path("\"/etc/keybearer/webhook-ca.pem\""));
    if secret_file.is_some() || ca_file.is_some() {
        section.require("webhook", "write where notices go, as in webhook = \"https://hooks.example.com/keybearer\"");
    }
    *webhook = target.map(|target| webhook::Settings { target, secret_file, ca_file });
}

fn read_usage(section: &mut Section, settings: &mut usage::Settings) {
    let usage::Settings { enabled, keep, flush_every } = settings;
    section.read("enabled", enabled, boolean);
    section.read("keep", keep, duration(DAY..=3650 * DAY, "\"400d\""));
    section.read("flush_every", flush_every, duration(SECOND..=10 * MINUTE, "\"10s\""));
}

/// A rate's own rule has an example in it.
fn rate() -> impl Fn(Given) -> Read<Rate> {
    parsed("a rate", "")
}
