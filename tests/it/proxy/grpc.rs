//! gRPC by its own client and server: every kind of call, status, trailers, metadata and deadlines; and its end with a token.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http::{Request, Version};
use keybearer::proxy::upstream::Protocol;
use tokio::time::timeout;

use super::upstream::settings;
use super::{Guarded, route};
use crate::gateway::TestGateway;
use crate::wire::{self, LONG};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/proxy/grpc_check.py");
const CHECKS: [&str; 9] = [
    "unary",
    "metadata",
    "status",
    "unimplemented",
    "deadline",
    "server streaming",
    "client streaming",
    "bidirectional",
    "refusals",
];

/// A Python that has gRPC: the machine's, or that of CI.
fn python() -> Option<String> {
    let of_ci = concat!(env!("CARGO_MANIFEST_DIR"), "/target/ci-venv/bin/python3");
    for python in ["python3", of_ci] {
        let found = Command::new(python).args(["-c", "import grpc"]).stderr(Stdio::null()).status();
        if found.is_ok_and(|status| status.success()) {
            return Some(python.to_owned());
        }
    }
    eprintln!("SKIPPED: grpcio is not installed");
    None
}

/// The service, which ends with the test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The service, and a gateway in front of it.
async fn served(python: &str) -> (Service, Guarded) {
    let mut command = Command::new(python);
    command.args([SCRIPT, "server"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut service = Service(command.spawn().expect("a server"));
    let mut lines = BufReader::new(service.0.stdout.take().expect("its output"));
    let port = tokio::task::spawn_blocking(move || {
        let mut port = String::new();
        lines.read_line(&mut port).map(|_| port)
    });
    let port = timeout(LONG, port).await.expect("in time").expect("no panic").expect("a line");
    let address = ([127, 0, 0, 1], port.trim().parse().expect("a port")).into();
    let mut settings = settings("grpc", address);
    settings.protocol = Protocol::Http2;
    let builder = TestGateway::build().upstream(settings).route(route("grpc", "/test.Bytes/*", "grpc"));
    (service, Guarded::started(builder).await)
}

#[tokio::test]
async fn every_kind_of_call_passes() {
    let Some(python) = python() else { return };
    let (_service, guarded) = served(&python).await;
    let port = guarded.gateway.https().port().to_string();
    let mut client = Command::new(&python);
    client.args([Path::new(SCRIPT), Path::new("client"), Path::new(&port), &guarded.gateway.authority()]);
    client.arg(&guarded.token);
    // Each of its calls has a deadline.
    let client = tokio::task::spawn_blocking(move || client.output()).await.expect("no panic").expect("a client");
    let (said, failed) = (String::from_utf8_lossy(&client.stdout), String::from_utf8_lossy(&client.stderr));
    let passed: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
    assert_eq!(passed, CHECKS, "{failed}");
    guarded.is_deserted().await;
}

/// A call that waits for more of either side is a stream, and ends with its token.
#[tokio::test]
async fn a_call_ends_with_its_token() {
    let Some(python) = python() else { return };
    let (_service, guarded) = served(&python).await;
    for is_revoked in [false, true] {
        let token = guarded.gateway.token(&guarded.key).await;
        let tcp = tokio::net::TcpStream::connect(guarded.gateway.https()).await.expect("a connection");
        let tls = wire::connect(&guarded.gateway, "h2", tcp).await.expect("TLS");
        let (sender, connection) = h2::client::handshake(tls).await.expect("a beginning");
        let connection = tokio::spawn(async { drop(connection.await) });
        let request = Request::post("https://localhost/test.Bytes/Both")
            .version(Version::HTTP_2)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (answer, mut stream) = sender.ready().await.unwrap().send_request(request, false).expect("sent");
        stream.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), false).expect("sent");
        let answer = timeout(LONG, answer).await.expect("in time").expect("an answer");
        let mut body = answer.into_body();
        assert_eq!(
            timeout(LONG, body.data()).await.expect("in time").expect("data").expect("sound"),
            &b"\0\0\0\0\x02HI"[..]
        );
        if is_revoked {
            guarded.revoke_token(&token).await;
        } else {
            guarded.gateway.advance(std::time::Duration::from_secs(3600));
        }
        let end = timeout(LONG, body.data()).await.expect("in time").expect("not a sound end");
        assert!(end.is_err_and(|error| error.is_reset()), "reset");
        guarded.is_at_rest().await;
        connection.abort();
    }
}
