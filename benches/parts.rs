//! What the parts of a request cost by themselves: the yardsticks for the whole, which `bench/compare` measures.
//!
//! `cargo bench --bench parts`, or one part: `cargo bench --bench parts -- rsa_2048_sign`.
//!
//! Times are **CPU time of the measuring thread**, not wall time: that is what `bench/compare` reports for servers, and it
//! does not grow when something else keeps the machine busy.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use http::request::Parts;
use http::{HeaderMap, Request, Version};
use keybearer::access::{self, Gate, Permit, Presented, Refusals, identity_headers};
use keybearer::client_addr::Peer;
use keybearer::clock::{Clock, ManualClock, Timestamp};
use keybearer::exchange::{Exchange, Located, Meter, Received};
use keybearer::forward_auth::{self, ForwardAuth};
use keybearer::groups::demo;
use keybearer::ids::{KeyId, RequestId, TokenId};
use keybearer::keys::KeyPrefix;
use keybearer::proxy::headers::Onward;
use keybearer::random;
use keybearer::registry::{Digest, Registry};
use keybearer::routes::{Audience, BuiltIns, Contract, Resource, RouteSettings, RouteTable};
use keybearer::signing::{self, Algorithm, KeyRing, PrivateKey};
use keybearer::store::MemoryStore;
use keybearer::tokens::{self, Client, Terms, Token};
use keybearer::usage::{self, Event, Ledger, Line, Spot, StatusClass};
use rustix::time::{ClockId, clock_gettime};

/// Length of what RS256 signs: header and claims of an access token, base64url.
const SIGNING_INPUT: usize = 420;
/// Length of a whole access token, signature included.
const ACCESS_TOKEN: usize = 700;

fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("a thread's CPU time is never negative")
}

/// Measures `part` in CPU time.
fn measure<T>(bencher: &mut Bencher<'_>, mut part: impl FnMut() -> T) {
    bencher.iter_custom(|iterations| {
        let start = cpu_time();
        for _ in 0..iterations {
            black_box(part());
        }
        cpu_time() - start
    });
}

/// One bare RS256 signature with a key that was parsed before: no token can cost less, so `/token` is held against it.
fn rsa_2048_sign(c: &mut Criterion) {
    let key = KeyPair::generate(KeySize::Rsa2048).expect("RSA-2048 key");
    let random = SystemRandom::new();
    let message = [b'a'; SIGNING_INPUT];
    let mut signature = vec![0; key.public_modulus_len()];
    c.bench_function("rsa_2048_sign", |b| {
        measure(b, || key.sign(&RSA_PKCS1_SHA256, &random, black_box(&message), &mut signature).expect("signature"));
    });
}

/// What a token of each algorithm costs to sign, by the gateway's own key: RS256 is to cost what the bare signature does.
fn sign(c: &mut Criterion) {
    let message = [b'a'; SIGNING_INPUT];
    for algorithm in Algorithm::ALL {
        let key = PrivateKey::generate(algorithm, 2048).expect("a key");
        c.bench_function(&format!("sign_{algorithm}"), |b| {
            measure(b, || key.sign(black_box(&message)).expect("signature"));
        });
    }
}

/// The registry's look-up key: the digest of a presented token.
fn sha256_700(c: &mut Criterion) {
    let token = [b'a'; ACCESS_TOKEN];
    c.bench_function("sha256_700", |b| measure(b, || digest(&SHA256, black_box(&token))));
}

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4711);

/// A hundred routes of every form, as a large installation has them.
fn table() -> RouteTable {
    let route = |id: String, host: Option<&str>, path: &str| RouteSettings {
        hosts: host.into_iter().map(|host| host.parse().expect("a host")).collect(),
        groups: vec!["orders".parse().expect("a group")],
        ..RouteSettings::new(id.parse().expect("an id"), path.parse().expect("a pattern"), Resource::Time)
    };
    let mut routes = Vec::new();
    for n in 0..25 {
        routes.push(route(format!("exact-{n}"), None, &format!("/orders/{n}/latest")));
        routes.push(route(format!("below-{n}"), None, &format!("/files-{n}/*")));
        routes.push(route(format!("pattern-{n}"), None, &format!("/users-{n}/{{id}}/orders/{{order}}")));
        routes.push(route(format!("host-{n}"), Some(&format!("*.shop-{n}.example.com")), "/orders/*"));
    }
    RouteTable::new(&routes, BuiltIns { demo: true, forward_auth: true })
}

/// Finding a route by an exact path, by a pattern with parameters, and by a host below a name.
fn route_table_find(c: &mut Criterion) {
    let table = table();
    for (name, host, path) in [
        ("route_find_exact", "localhost", "/orders/17/latest"),
        ("route_find_pattern", "localhost", "/users-17/4711/orders/42"),
        ("route_find_host", "www.shop-17.example.com", "/orders/17/4711"),
    ] {
        assert!(table.find(host, path, "GET").is_some(), "{name}");
        c.bench_function(name, |b| {
            measure(b, || table.find(black_box(host), black_box(path), "GET").map(|it| it.index))
        });
    }
}

/// The decision with one licensed token in it.
struct House {
    gate: Arc<Gate>,
    authorization: String,
}

impl House {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW));
        let settings = signing::Settings::default();
        let ring =
            KeyRing::load(&settings, Duration::from_secs(3600), Arc::new(MemoryStore::new()), Arc::clone(&clock));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let ring = Arc::new(runtime.block_on(ring).expect("a key ring"));
        let registry = Arc::new(Registry::new(1000));
        let jwt = "a".repeat(ACCESS_TOKEN);
        let token = Token {
            account: "example-account".parse().expect("a name"),
            client: Client::Key(KeyId::random()),
            groups: ["billing", "orders"].map(|group| group.parse().expect("a group")).into(),
            id: TokenId::random(),
            issued_at: NOW.secs(),
            expires_at: NOW.secs() + 3600,
            terms: Terms::default(),
        };
        registry.admit(Digest::of(jwt.as_bytes()), &token, NOW).expect("nothing is revoked");
        let verifier = tokens::Verifier::new(&tokens::Settings::default(), ring);
        let gate = Arc::new(Gate::new(registry, verifier, &demo::Settings::default(), clock));
        Self { gate, authorization: format!("Bearer {jwt}") }
    }

    fn permit(&self) -> Permit {
        let presented = Presented::from_authorization(self.authorization.as_bytes());
        let exchange = exchange(&Arc::new(table()), &self.head("/orders/1", &[]));
        self.gate.decide(&exchange, &Audience::Token, presented, PEER.ip()).expect("the token is good")
    }

    fn head(&self, uri: &str, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request =
            Request::get(uri).header("host", "localhost:8443").header("authorization", &self.authorization);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }
}

/// A request that nothing is known of but its head.
fn exchange(table: &Arc<RouteTable>, head: &Parts) -> Exchange {
    Exchange::new(Received {
        request: RequestId(7),
        at: NOW,
        peer: Peer::Address(PEER),
        is_proxied: false,
        client: PEER.ip(),
        route: Located::nowhere(Arc::clone(table)),
        normalised: None,
        head,
    })
}

/// What is said of a request to its upstream.
fn onward(c: &mut Criterion) {
    let house = House::new();
    let (permit, prefix) = (house.permit(), KeyPrefix::default());
    let own = ["orders".parse().expect("a group")];
    c.bench_function("identity_headers", |b| measure(b, || identity_headers(black_box(&permit), &prefix, &own)));

    let fields =
        [("user-agent", "curl/8.0"), ("accept", "*/*"), ("accept-encoding", "gzip"), ("connection", "keep-alive")];
    let received = house.head("/orders/1", &fields).headers;
    c.bench_function("headers_clone", |b| measure(b, || HeaderMap::clone(black_box(&received))));
    // The copy is in the figure, for the fields change; the line above says what it costs.
    c.bench_function("headers_clone_and_onward", |b| {
        measure(b, || {
            let mut headers = received.clone();
            let onward = Onward {
                version: Version::HTTP_11,
                peer: PEER.ip(),
                chain: None,
                host: "localhost:8443",
                request: RequestId(7),
                pass_credentials: false,
                identity: Some(identity_headers(&permit, &prefix, &own)),
            };
            onward.apply(&mut headers, random::bytes).expect("no loop");
            headers
        });
    });
}

/// A decision for nginx from the received head to the answer, without its network.
fn forward_auth(c: &mut Criterion) {
    let house = House::new();
    let (access, prefix) = (access::Settings::default(), KeyPrefix::default());
    let door = ForwardAuth::new(
        &forward_auth::Settings::default(),
        Arc::clone(&house.gate),
        Arc::new(Refusals::new(&access, None)),
        prefix,
    );
    let table = Arc::new(table());
    let head = house.head(
        Contract::AuthRequest.path(),
        &[
            ("x-original-method", "GET"),
            ("x-original-uri", "/orders/17/latest?a=b"),
            ("x-forwarded-host", "localhost"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "192.0.2.1"),
        ],
    );
    let decide = || {
        let exchange = exchange(&table, &head);
        door.respond(&exchange, Peer::Address(PEER), &head, Contract::AuthRequest, "")
    };
    assert_eq!(decide().status(), 200);
    c.bench_function("forward_auth_respond", |b| measure(b, decide));
}

/// Counting a request as usage: its head, and its content, which is another look at the same cell. And the ledger by itself, in
/// one cell and in as many as a busy gateway has.
fn usage(c: &mut Criterion) {
    let house = House::new();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW));
    let ledger = Arc::new(Ledger::new(&usage::Settings::default(), clock));
    let table = Arc::new(table());
    let head = house.head("/orders/17/latest", &[]);
    let exchange = || {
        let route = Located::find(Arc::clone(&table), "localhost", "/orders/17/latest", "GET");
        let peer = Peer::Address(PEER);
        let (request, client) = (RequestId(7), PEER.ip());
        let exchange = Exchange::new(Received {
            request,
            at: NOW,
            peer,
            is_proxied: false,
            client,
            route,
            normalised: None,
            head: &head,
        });
        exchange.granted(house.permit());
        Arc::new(exchange)
    };
    let counted = exchange();
    let took = Duration::from_micros(42);
    c.bench_function("usage_count_head", |b| measure(b, || counted.count(&ledger, 200, took)));
    c.bench_function("usage_count_head_and_content", |b| {
        measure(b, || {
            counted.count(&ledger, 200, took);
            Meter::new(&ledger, &counted).short(true).sent(black_box(64));
        });
    });
    let spot = |who| Spot {
        who,
        table: 1,
        route: Some(17),
        hour: ledger.hour(),
        class: StatusClass::of(200),
        is_granted: true,
    };
    let event = Event { answered: Some(took), bytes_in: 0, bytes_out: 64 };
    for cells in [1, 10_000] {
        let mut who = 0;
        c.bench_function(&format!("usage_ledger_of_{cells}"), |b| {
            measure(b, || {
                who = (who + 7919) % cells;
                ledger.count(spot(who + 1), event, || Line::other(StatusClass::of(200)));
            });
        });
    }
}

criterion_group!(parts, rsa_2048_sign, sign, sha256_700, route_table_find, onward, forward_auth, usage);
criterion_main!(parts);
