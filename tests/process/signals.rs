//! Signals, and files that change while the server runs.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::Signal;

use crate::https::{Client, Connection, bearer};
use crate::installation::{Installation, SAMPLE_ROUTE, Server};
use crate::poll::until;

const DRAINING: &str = "asked to end";

/// A request whose content has half arrived, and which is in flight: the gateway asked for the content.
fn half_a_request(server: &Server) -> Connection {
    let client = server.client();
    let token = client.call("GET", "/demo", None).json()["token"].as_str().expect("a demo token").to_owned();
    let mut connection = client.connect().expect("a connection");
    let head = format!(
        "POST /demo/echo HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\ncontent-length: 10\r\n\
         expect: 100-continue\r\n\r\n",
        bearer(&token)
    );
    connection.send(head.as_bytes()).expect("sent");
    assert_eq!(connection.answer().expect("an interim answer").status, 100);
    connection.send(b"first").expect("sent");
    connection
}

#[test]
fn sigterm_lets_a_request_in_flight_finish_and_takes_no_new_connection() {
    let installation = Installation::with("[server]\nshutdown_grace = \"20s\"\n");
    let server = installation.serve();
    let mut idle = server.client().connect().expect("a connection");
    assert_eq!(idle.call("GET", "/health/ready", None).expect("an answer").status, 200);
    let mut in_flight = half_a_request(&server);
    let asked = Instant::now();
    server.process.signal(Signal::TERM);
    server.until_logged(DRAINING);
    until("new connections are refused", || TcpStream::connect(server.https).is_err());
    until("new connections of operators are refused", || TcpStream::connect(server.admin).is_err());
    // An idle connection is no reason to wait.
    until("an idle connection is closed", || idle.call("GET", "/health/ready", None).is_err());

    in_flight.send(b"later").expect("sent");
    let answer = in_flight.answer().expect("the answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["content"]["text"], "firstlater");
    drop(in_flight);
    let Server { process, .. } = server;
    let done = process.end();
    assert_eq!(done.code(), Some(0), "{done}");
    assert!(done.at - asked < Duration::from_secs(20), "within the grace");
    assert!(done.stdout.trim_end().ends_with("ended"), "{done}");
}

#[test]
fn a_request_that_does_not_finish_is_cut_off_when_the_grace_is_over() {
    let installation = Installation::with("[server]\nshutdown_grace = \"1s\"\n");
    let server = installation.serve();
    let mut in_flight = half_a_request(&server);
    let asked = Instant::now();
    server.process.signal(Signal::TERM);
    let Server { process, .. } = server;
    let done = process.end();
    assert_eq!(done.code(), Some(0), "{done}");
    let took = done.at - asked;
    assert!(took >= Duration::from_secs(1), "the grace is granted: {took:?}");
    assert!(took < Duration::from_secs(10), "and it ends: {took:?}");
    assert!(in_flight.answer().is_err());
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let installation = Installation::with("[server]\nshutdown_grace = \"1h\"\n");
    for second in [Signal::TERM, Signal::INT] {
        let server = installation.serve();
        let mut in_flight = half_a_request(&server);
        server.process.signal(Signal::TERM);
        server.until_logged(DRAINING);
        server.process.signal(second);
        let Server { process, .. } = server;
        let done = process.end();
        assert_eq!(done.code(), Some(0), "{done}");
        assert!(done.stdout.contains("asked again: ending at once"), "{done}");
        assert!(in_flight.answer().is_err());
    }
}

#[test]
fn sigint_ends_too() {
    let installation = Installation::new();
    let server = installation.serve();
    server.process.signal(Signal::INT);
    let Server { process, .. } = server;
    let done = process.end();
    assert_eq!(done.code(), Some(0), "{done}");
}

const RELOADED: &str = "configuration reloaded";
const FAULTY: &str = "the new configuration is faulty, and the old one stays";

fn route(id: &str) -> String {
    format!("[[routes]]\nid = \"{id}\"\npath = \"/{id}/*\"\ngroups = [\"sample\"]\nresource = \"echo\"\n")
}

#[test]
fn sighup_reloads_even_when_the_file_is_as_it_was() {
    let installation = Installation::new();
    let server = installation.serve();
    for count in 1..=3 {
        server.process.signal(Signal::HUP);
        until("it reloads", || server.logged(RELOADED) == count);
    }
    server.stop();
}

#[test]
fn sighup_puts_changed_routes_into_force_and_keeps_the_old_ones_when_the_file_is_faulty() {
    let installation = Installation::new();
    let acme = installation.customer("acme");
    let server = installation.serve();
    let client = server.client();
    let token = client.with_key(&acme.key).token();
    assert_eq!((client.status("/sample/x", &token), client.status("/added/x", &token)), (200, 404));

    installation.configure(&format!("{SAMPLE_ROUTE}{}", route("added")));
    server.process.signal(Signal::HUP);
    until("the new route is in force", || client.status("/added/x", &token) == 200);
    assert_eq!(client.status("/sample/x", &token), 200);
    assert_eq!(client.call("GET", "/added/x", None).status, 401, "it is guarded");

    for faulty in ["[server]\nlisten = 7\nfrobnicate = true\n", "this is no TOML"] {
        let before = server.logged(FAULTY);
        installation.configure(faulty);
        server.process.signal(Signal::HUP);
        until("the fault is told", || server.logged(FAULTY) > before);
        assert_eq!((client.status("/sample/x", &token), client.status("/added/x", &token)), (200, 200));
    }
    let log = server.process.stdout();
    assert!(log.contains("server.listen") && log.contains("frobnicate"), "every fault is named: {log}");

    installation.configure(SAMPLE_ROUTE);
    server.process.signal(Signal::HUP);
    until("the route is gone", || client.status("/added/x", &token) == 404);
    assert_eq!(client.status("/sample/x", &token), 200);
    server.stop();
}

#[test]
fn a_changed_file_is_noticed_without_a_signal() {
    let installation = Installation::new();
    let acme = installation.customer("acme");
    let server = installation.serve();
    let client = server.client();
    let token = client.with_key(&acme.key).token();
    installation.configure(&format!("{SAMPLE_ROUTE}{}", route("added")));
    until("the new route is in force", || client.status("/added/x", &token) == 200);

    installation.configure("[server]\nfrobnicate = true\n");
    server.until_logged(FAULTY);
    assert_eq!(client.status("/added/x", &token), 200);

    // What needs a restart is told.
    installation.configure(&format!("[tokens]\nlifetime = \"5m\"\n\n{SAMPLE_ROUTE}"));
    until("the route is gone", || client.status("/added/x", &token) == 404);
    server.until_logged("takes effect after a restart");
    assert!(server.logged("setting=\"tokens\"") == 1, "{}", server.process.stdout());
    server.stop();
}

/// A limit that is reloaded is in force for the connections that come.
#[test]
fn a_changed_limit_of_connections_is_in_force_after_a_reload() {
    let installation = Installation::new();
    let server = installation.serve();
    let kept: Vec<_> = (0..5).map(|_| server.client().connect().expect("a connection")).collect();
    installation.configure("[limits]\nconnections = 5\nconnections_per_address = 5\n");
    server.process.signal(Signal::HUP);
    until("no further connection is taken", || server.client().connect().is_err());
    drop(kept);
    until("there is room again", || server.client().connect().is_ok());
    server.stop();
}

/// An authority of the operator's own, and the certificates it issues.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(installation: &Installation, name: &str) -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        installation.file(name, issuer.pem());
        Self(issuer)
    }

    /// Certificate and key, as PEM.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

fn believes(server: &Server, ca: &Path) -> bool {
    let connected = Client::new(server.https, ca).connect();
    connected.is_ok_and(|mut connection| connection.call("GET", "/health/live", None).is_ok())
}

#[test]
fn changed_certificate_files_are_served_without_a_restart_and_faulty_ones_are_not() {
    let installation = Installation::new();
    let authorities = ["a.pem", "b.pem", "c.pem"].map(|name| Authority::new(&installation, name));
    let ca = |name: &str| installation.path(name);
    let put = |(certificate, key): (String, String)| {
        installation.file("tls.crt", certificate);
        installation.file("tls.key", key);
    };
    put(authorities[0].issue());
    let (certificate, key) = (installation.path("tls.crt"), installation.path("tls.key"));
    installation.configure(&format!("[tls]\ncertificate = {certificate:?}\nprivate_key = {key:?}\n"));
    let server = installation.serve();
    assert!(believes(&server, &ca("a.pem")) && !believes(&server, &ca("b.pem")));

    // A connection that is open stays open.
    let mut open = Client::new(server.https, &ca("a.pem")).connect().expect("a connection");
    put(authorities[1].issue());
    until("the new certificate is served", || believes(&server, &ca("b.pem")));
    assert!(!believes(&server, &ca("a.pem")));
    assert_eq!(open.call("GET", "/health/live", None).expect("an answer").status, 200);

    let told = "changed certificate files cannot be used; the old certificate stays";
    let (of_another_key, _) = authorities[2].issue();
    let faulty = ["garbage".to_owned(), of_another_key];
    for (count, faulty) in faulty.into_iter().enumerate() {
        installation.file("tls.crt", faulty);
        until("the fault is told", || server.logged(told) > count);
        assert!(believes(&server, &ca("b.pem")), "the old certificate stays");
    }
    fs::remove_file(&certificate).expect("a removed file");
    until("the missing file is told", || server.logged("tls.crt does not exist") > 0);
    assert!(believes(&server, &ca("b.pem")));

    put(authorities[2].issue());
    until("the good certificate is served", || believes(&server, &ca("c.pem")));
    assert!(!believes(&server, &ca("b.pem")));
    // The container's health check follows too.
    let mut health = installation.command(&["health"]);
    health.env("KEYBEARER__SERVER__LISTEN", server.https.to_string());
    let health = crate::installation::finish(health, b"");
    assert_eq!(health.code(), Some(0), "{health}");
    server.process.signal(Signal::TERM);
    let Server { process, .. } = server;
    assert_eq!(process.end().code(), Some(0));
}
