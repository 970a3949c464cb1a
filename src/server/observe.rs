//! The metrics of the proxy: what it and its upstreams count themselves, read when the metrics are.

use std::sync::Arc;

use crate::ids::UpstreamId;
use crate::plans::Meters;
use crate::proxy::upstream::Snapshot;
use crate::proxy::{Cut, Proxy};
use crate::telemetry::{Labels, Metrics};
use crate::usage::Ledger;

/// Adds the values of the upstreams and of what is under way to and from them.
#[allow(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is more than there can be")]
pub(super) fn proxy(metrics: &Metrics, proxy: &Arc<Proxy>) {
    let gauges = |name, help, value: fn(&Snapshot) -> usize| {
        let of = Arc::clone(proxy);
        metrics.gauges(name, help, move || {
            let all = of.upstreams().snapshots();
            all.into_iter().map(|(id, snapshot)| (of_upstream(&id), value(&snapshot) as f64)).collect()
        });
    };
    gauges("upstream_requests_in_flight", "Requests and tunnels at an upstream", |of| of.in_flight);
    gauges("upstream_connections", "Open connections to an upstream", |of| of.connections);
    let counters = |name, help, value: fn(&Snapshot) -> u64| {
        let of = Arc::clone(proxy);
        metrics.counters(name, help, move || {
            let all = of.upstreams().snapshots();
            all.into_iter().map(|(id, snapshot)| (of_upstream(&id), value(&snapshot))).collect()
        });
    };
    counters("upstream_retries", "Requests to an upstream that were attempted anew", |of| of.retries);
    counters("upstream_ejections", "Addresses of an upstream that were left out because they failed", |of| {
        of.ejections
    });
    let of = Arc::clone(proxy);
    metrics.gauges("upstream_endpoints", "Addresses of an upstream, by how they stand", move || {
        let states = |(id, of): &(UpstreamId, Snapshot)| {
            let labels = |state: &str| {
                let mut labels = of_upstream(id);
                labels.push(("state", state.to_owned()));
                labels
            };
            let states = [
                ("available", of.available),
                ("returning", of.returning),
                ("ejected", of.ejected),
                ("unhealthy", of.unhealthy),
            ];
            states.map(|(state, count)| (labels(state), count as f64))
        };
        of.upstreams().snapshots().iter().flat_map(states).collect()
    });
    let of = Arc::clone(proxy);
    metrics.gauge("flows_under_way", "Requests whose content, or their answer's, is under way", move || {
        of.flows().under_way() as f64
    });
    let of = Arc::clone(proxy);
    metrics.counters("flows_cut", "Contents cut off under way, by reason", move || {
        let cuts = [Cut::Idle, Cut::Expired, Cut::Revoked, Cut::Shutdown];
        cuts.map(|cut| (vec![("reason", cut.word().to_owned())], of.flows().cuts(cut))).into()
    });
    let of = Arc::clone(proxy);
    metrics.gauge("tunnels", "Open WebSockets and other upgraded connections", move || of.tunnels() as f64);
}

/// Adds the values of the counting of usage.
#[allow(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is more than there can be")]
pub(super) fn usage(metrics: &Metrics, ledger: &Arc<Ledger>) {
    let of = Arc::clone(ledger);
    metrics.gauge("usage_lines_unwritten", "Lines of usage that are counted and not in the store yet", move || {
        let (cells, lines) = of.size();
        (cells + lines) as f64
    });
    let of = Arc::clone(ledger);
    metrics
        .counter("usage_writes_failed", "Attempts to write usage that failed; all are repeated", move || of.failures());
    let of = Arc::clone(ledger);
    let help = "Requests whose usage is counted with others', because too many lines are in memory";
    metrics.counter("usage_requests_not_told_apart", help, move || of.others());
}

fn of_upstream(id: &UpstreamId) -> Labels {
    vec![("upstream", id.as_str().to_owned())]
}

/// Adds the values of what plans count.
#[allow(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is more than we hold")]
pub(super) fn plans(metrics: &Metrics, meters: &Arc<Meters>) {
    let of = Arc::clone(meters);
    metrics.gauge("plan_meters", "Licences, keys, accounts on routes and addresses that plans count", move || {
        of.len() as f64
    });
    let of = Arc::clone(meters);
    let help = "Attempts to write what plans count that failed; all are repeated";
    metrics.counter("plan_writes_failed", help, move || of.failures());
}
