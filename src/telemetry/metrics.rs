//! Metrics in the OpenMetrics text format. Labels are bounded sets of our own words; no client chooses one.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// A label value of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Word(pub String);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        use std::fmt::Write as _;
        encoder.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: Word,
    status: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CredentialLabel {
    credential: Word,
}

type Reasons = Family<ReasonLabel, Counter>;

/// The counters of one route, looked up once when the route table is made.
#[derive(Debug, Clone)]
pub struct RouteMetrics {
    by_status: [Counter; 5],
    duration: Histogram,
}

impl RouteMetrics {
    /// Counts an answer.
    pub fn answered(&self, status: u16, duration: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.by_status[class].inc();
        self.duration.observe(duration.as_secs_f64());
    }
}

/// Everything that is counted as it happens.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    answered: Family<Answered, Counter>,
    durations: Family<RouteLabel, Histogram, fn() -> Histogram>,
    refused: Reasons,
    issued: Family<CredentialLabel, Counter>,
    exposed: Family<CredentialLabel, Counter>,
    closed: Reasons,
    /// HTTP connections that are open.
    pub connections: Gauge,
    /// Requests in the clear to a TLS port.
    pub plaintext: Counter,
    /// TLS handshakes that failed.
    pub handshakes_failed: Counter,
    /// Handlers that panicked.
    pub panics: Counter,
}

fn histogram() -> Histogram {
    // From a cached decision (tens of microseconds) to the longest that a request may take.
    Histogram::new([
        0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("keybearer");
        let metrics = Self {
            answered: Family::default(),
            durations: Family::new_with_constructor(histogram),
            refused: Family::default(),
            issued: Family::default(),
            exposed: Family::default(),
            closed: Family::default(),
            connections: Gauge::default(),
            plaintext: Counter::default(),
            handshakes_failed: Counter::default(),
            panics: Counter::default(),
            registry: Mutex::default(),
        };
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running program", version);
        registry.register("requests", "Requests answered", metrics.answered.clone());
        registry.register(
            "request_duration_seconds",
            "Time from a request's head to its answer's head",
            metrics.durations.clone(),
        );
        registry.register("refusals", "Requests refused, by reason", metrics.refused.clone());
        registry.register("tokens_issued", "Access tokens issued, by credential", metrics.issued.clone());
        registry.register("exposed_credentials", "Credentials sent over plain HTTP", metrics.exposed.clone());
        registry.register("connections_closed", "Connections closed by a limit, by reason", metrics.closed.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("plaintext_requests", "Requests in the clear to a TLS port", metrics.plaintext.clone());
        registry.register("tls_handshakes_failed", "TLS handshakes that failed", metrics.handshakes_failed.clone());
        registry.register("panics", "Handlers that panicked", metrics.panics.clone());
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        metrics
    }
}

impl Metrics {
    /// The counters of a route.
    pub fn route(&self, id: &str) -> RouteMetrics {
        let of_class = |class: usize| {
            let labels = Answered { route: Word(id.into()), status: Word(format!("{}xx", class + 1)) };
            self.answered.get_or_create(&labels).clone()
        };
        let duration = self.durations.get_or_create(&RouteLabel { route: Word(id.into()) }).clone();
        RouteMetrics { by_status: std::array::from_fn(of_class), duration }
    }

    /// Counts a refusal.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason: Word(reason.into()) }).inc();
    }

    /// Counts a token issued by a `key`, a `password` or the `demo` key.
    pub fn issued(&self, credential: &'static str) {
        self.issued.get_or_create(&CredentialLabel { credential: Word(credential.into()) }).inc();
    }

    /// Counts a credential that was sent in the clear.
    pub fn exposed(&self, credential: &'static str) {
        self.exposed.get_or_create(&CredentialLabel { credential: Word(credential.into()) }).inc();
    }

    /// Counts a connection that a limit closed.
    pub fn closed(&self, reason: &'static str) {
        self.closed.get_or_create(&ReasonLabel { reason: Word(reason.into()) }).inc();
    }

    /// Adds a value that goes up and down, and is read when the metrics are.
    pub fn gauge(&self, name: &'static str, help: &'static str, value: impl Fn() -> f64 + Send + Sync + 'static) {
        self.collect(Observed { name, help, value: Value::Gauge(Box::new(value)) });
    }

    /// Adds a value that only grows, and is read when the metrics are.
    pub fn counter(&self, name: &'static str, help: &'static str, value: impl Fn() -> u64 + Send + Sync + 'static) {
        self.collect(Observed { name, help, value: Value::Counter(Box::new(value)) });
    }

    /// Adds values that go up and down, one for each set of labels, and are read when the metrics are. The labels must be a
    /// bounded set of the operator's words and ours.
    pub fn gauges(
        &self,
        name: &'static str,
        help: &'static str,
        values: impl Fn() -> Vec<(Labels, f64)> + Send + Sync + 'static,
    ) {
        self.collect(Observed { name, help, value: Value::Gauges(Box::new(values)) });
    }

    /// Adds values that only grow, as [`Metrics::gauges`] does.
    pub fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        values: impl Fn() -> Vec<(Labels, u64)> + Send + Sync + 'static,
    ) {
        self.collect(Observed { name, help, value: Value::Counters(Box::new(values)) });
    }

    fn collect(&self, observed: Observed) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(observed));
    }

    /// All metrics as text.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

/// The labels of one value: names, and what they are for it.
pub type Labels = Vec<(&'static str, String)>;

enum Value {
    Gauge(Box<dyn Fn() -> f64 + Send + Sync>),
    Counter(Box<dyn Fn() -> u64 + Send + Sync>),
    Gauges(Box<dyn Fn() -> Vec<(Labels, f64)> + Send + Sync>),
    Counters(Box<dyn Fn() -> Vec<(Labels, u64)> + Send + Sync>),
}

/// A value that somebody else keeps.
struct Observed {
    name: &'static str,
    help: &'static str,
    value: Value,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Collector for Observed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        match &self.value {
            Value::Gauge(value) => {
                let gauge = ConstGauge::new(value());
                gauge.encode(encoder.encode_descriptor(self.name, self.help, None, gauge.metric_type())?)
            }
            Value::Counter(value) => {
                let counter = ConstCounter::new(value());
                counter.encode(encoder.encode_descriptor(self.name, self.help, None, counter.metric_type())?)
            }
            Value::Gauges(values) => {
                let mut encoder = encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
                values()
                    .iter()
                    .try_for_each(|(labels, value)| ConstGauge::new(*value).encode(encoder.encode_family(labels)?))
            }
            Value::Counters(values) => {
                let mut encoder = encoder.encode_descriptor(self.name, self.help, None, MetricType::Counter)?;
                values()
                    .iter()
                    .try_for_each(|(labels, value)| ConstCounter::new(*value).encode(encoder.encode_family(labels)?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_others_keep_are_read_with_their_labels() {
        let metrics = Metrics::default();
        let of = |word: &str| vec![("upstream", word.to_owned())];
        metrics.gauges("open", "Open", move || vec![(of("one"), 1.0), (of("two"), 2.0)]);
        metrics.counters("cuts", "Cuts", move || vec![(of("one"), 3)]);
        metrics.gauges("none", "Of nobody", Vec::new);
        let text = metrics.encode();
        for line in [
            "# TYPE keybearer_open gauge",
            "keybearer_open{upstream=\"one\"} 1.0",
            "keybearer_open{upstream=\"two\"} 2.0",
            "# TYPE keybearer_cuts counter",
            "keybearer_cuts_total{upstream=\"one\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in:\n{text}");
        }
    }
}
