//! The sections of upstreams, and the faults that lie between their settings.

use std::time::Duration;

use super::domain::host_name;
use super::reader::{Reader, Section};
use super::routing::upstream_timeout;
use super::values::{DAY, Given, HOUR, Read, Wrong, duration, number, one_of, parsed, path};
use crate::ids::UpstreamId;
use crate::proxy::upstream::{
    Balance, Ejection, HealthCheck, HostHeader, Protocol, TargetUrl, UpstreamSettings, UpstreamTls,
};
use crate::routes::normalise;

/// An upstream as far as it could be read.
#[derive(Debug)]
pub(super) struct Upstream {
    pub id: Option<UpstreamId>,
    settings: UpstreamSettings,
}

pub(super) fn read_upstream(section: &mut Section) -> Upstream {
    const PROTOCOLS: &[(&str, Protocol)] =
        &[("auto", Protocol::Auto), ("http1", Protocol::Http1), ("http2", Protocol::Http2)];
    const BALANCES: &[(&str, Balance)] = &[
        ("round_robin", Balance::RoundRobin),
        ("least_requests", Balance::LeastRequests),
        ("account", Balance::Account),
    ];
    let mut id: Option<UpstreamId> = None;
    section.read_some("id", &mut id, parsed("an upstream id", "\"orders\""));
    let mut settings = UpstreamSettings::new(id.clone().unwrap_or_else(|| "unnamed".parse().expect("an id")), vec![]);
    let UpstreamSettings {
        id: _,
        targets,
        protocol,
        balance,
        host,
        max_requests,
        connect_timeout,
        response_timeout,
        idle_timeout,
        keep_alive,
        retries,
        retry_budget,
        tls,
        health,
        ejection,
    } = &mut settings;
    section.list("targets", targets, parsed("a target", "[\"http://127.0.0.1:9000\"]"));
    section.read("protocol", protocol, one_of(PROTOCOLS, "\"auto\""));
    section.read("balance", balance, one_of(BALANCES, "\"round_robin\""));
    section.read("host", host, host_header);
    section.read("max_requests", max_requests, number(1..=1_000_000, "1024"));
    section.read("connect_timeout", connect_timeout, upstream_timeout("\"3s\""));
    section.read("response_timeout", response_timeout, upstream_timeout("\"60s\""));
    section.read("idle_timeout", idle_timeout, upstream_timeout("\"60s\""));
    section.read("keep_alive", keep_alive, duration(Duration::ZERO..=HOUR, "\"30s\""));
    section.read("retries", retries, number(0..=10, "2"));
    section.read("retry_budget", retry_budget, number(0..=100, "20"));
    section.section("tls", |section| read_tls(section, tls));
    section.section("health", |section| read_health(section, health));
    section.section("ejection", |section| read_ejection(section, ejection));
    section.require("id", "give it a name, as in id = \"orders\"");
    section.require("targets", "write where it is, as in targets = [\"http://127.0.0.1:9000\"]");
    Upstream { id, settings }
}

fn read_tls(section: &mut Section, settings: &mut UpstreamTls) {
    let UpstreamTls { ca_file, certificate, private_key, server_name } = settings;
    section.read_some("ca_file", ca_file, path("\"/etc/keybearer/orders-ca.pem\""));
    section.read_some("certificate", certificate, path("\"/etc/keybearer/client.pem\""));
    section.read_some("private_key", private_key, path("\"/etc/keybearer/client.key\""));
    section.read_some("server_name", server_name, host_name);
    for (given, missing) in [("certificate", "private_key"), ("private_key", "certificate")] {
        if section.has(given) && !section.has(missing) {
            section.object(given, format!("is given without {missing}"), "give both, or neither");
        }
    }
}

fn read_health(section: &mut Section, into: &mut Option<HealthCheck>) {
    let mut settings = HealthCheck::default();
    let HealthCheck { path, interval, timeout, healthy_after, unhealthy_after } = &mut settings;
    section.read("path", path, check_path);
    section.read("interval", interval, duration(Duration::from_millis(100)..=HOUR, "\"10s\""));
    section.read("timeout", timeout, upstream_timeout("\"2s\""));
    section.read("healthy_after", healthy_after, number(1..=1000, "2"));
    section.read("unhealthy_after", unhealthy_after, number(1..=1000, "3"));
    if section.is_given() {
        section.require("path", "write what is asked for, as in path = \"/healthz\"");
        *into = Some(settings);
    }
}

fn read_ejection(section: &mut Section, settings: &mut Ejection) {
    let Ejection { failures, time, return_over } = settings;
    section.read("failures", failures, number(0..=1_000_000, "5"));
    section.read("time", time, duration(Duration::from_millis(100)..=DAY, "\"30s\""));
    section.read("return_over", return_over, duration(Duration::ZERO..=DAY, "\"30s\""));
}

/// The Host that an upstream sees.
fn host_header(given: Given) -> Read<HostHeader> {
    match given.text() {
        Some("client") => Ok(HostHeader::Client),
        Some("target") => Ok(HostHeader::Target),
        Some(name) if crate::routes::host::is_authority(name.as_bytes()) => Ok(HostHeader::Name(name.into())),
        _ => Err(given.is_not("a host", "write \"client\", \"target\" or a host name", "\"client\"")),
    }
}

/// The path of a health check, perhaps with a query.
fn check_path(given: Given) -> Read<String> {
    const EXAMPLE: &str = "\"/healthz\"";
    let good = |text: &&str| {
        text.split('?').next().is_some_and(|path| normalise(path).is_ok())
            && text.parse::<http::uri::PathAndQuery>().is_ok()
            && !text.contains('#')
    };
    let wrong = || -> Wrong { given.is_not("a path", "write a path that begins with '/'", EXAMPLE) };
    given.text().filter(good).map(str::to_owned).ok_or_else(wrong)
}

/// Checks upstreams against one another, and each for itself.
pub(super) fn check(upstreams: &[Upstream], reader: &mut Reader) {
    for (index, upstream) in upstreams.iter().enumerate() {
        let at = |key: &str| format!("upstreams[{index}].{key}");
        let twin = upstreams[..index].iter().position(|other| other.id == upstream.id);
        if let (Some(twin), Some(id)) = (twin, &upstream.id) {
            let problem = format!("{:?} is the id of upstreams[{twin}] too", id.as_str());
            reader.object(&at("id"), problem, "give each upstream an id of its own");
        }
        let UpstreamSettings { targets, tls, .. } = &upstream.settings;
        let targets_path = at("targets");
        if targets.is_empty() && reader.is_given(&targets_path) && reader.is_sound(&targets_path) {
            reader.object(&targets_path, "is empty", "write where it is, as in targets = [\"http://127.0.0.1:9000\"]");
        }
        let twice = |target: &TargetUrl| targets.iter().filter(|other| *other == target).count() > 1;
        if let Some(target) = targets.iter().find(|target| twice(target)) {
            reader.object(&targets_path, format!("\"{target}\" is in it twice"), "write it once");
        }
        let uses_tls = targets.iter().any(|target| target.tls);
        if !uses_tls && !targets.is_empty() && *tls != UpstreamTls::default() {
            let problem = "has no meaning: no target begins with https";
            reader.object(&at("tls"), problem, "remove it, or write the targets with https");
        }
    }
}

/// The whole upstreams; all of them, when the reading had no fault.
pub(super) fn settled(upstreams: Vec<Upstream>) -> Vec<UpstreamSettings> {
    upstreams.into_iter().filter(|upstream| upstream.id.is_some()).map(|upstream| upstream.settings).collect()
}
