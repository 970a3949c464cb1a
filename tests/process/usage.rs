//! Usage through restarts: clients count what they were answered, and the store has the same, to the request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::https::{basic, bearer};
use crate::installation::{Customer, Installation, Server};
use crate::poll::until;

/// What one client counted, by status and in all: requests and bytes of content.
type Counted = BTreeMap<String, (u64, u64)>;

fn count(counted: &mut Counted, status: u16, bytes: usize) {
    let held = counted.entry(format!("{}xx", status / 100)).or_default();
    *held = (held.0 + 1, held.1 + bytes as u64);
}

/// Asks until the gateway ends, on one connection after another, and never twice at once: what was answered is known.
fn ask(server: &Server, customer: &Customer, ends: &AtomicBool) -> Counted {
    let (client, login) = (server.client(), basic(&customer.key, ""));
    let mut counted = Counted::new();
    let mut token: Option<String> = None;
    while !ends.load(Ordering::SeqCst) {
        let Ok(mut connection) = client.connect() else { continue };
        for turn in 0.. {
            let (path, authorization) = match &token {
                None => ("/token", login.clone()),
                Some(token) => (["/sample/a", "/whoami", "/nowhere"][turn % 3], bearer(token)),
            };
            // One that is cut off in the midst would leave it open whether it was counted; an orderly end cuts none off.
            let Ok(answer) = connection.call("GET", path, Some(&authorization)) else { break };
            count(&mut counted, answer.status, answer.body.len());
            if path == "/token" {
                token = Some(answer.token());
            }
            if ends.load(Ordering::SeqCst) && turn > 0 {
                break;
            }
        }
    }
    counted
}

/// `keybearer usage` of one account, by status.
fn kept(installation: &Installation, account: &str) -> Counted {
    let text = installation.ok(&["usage", "--account", account, "--by", "status", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let entries = document["usage"].as_array().expect("entries");
    let of = |entry: &serde_json::Value| {
        let status = entry["status"].as_str().expect("a class").to_owned();
        (status, (number(&entry["requests"]), number(&entry["bytes_out"])))
    };
    entries.iter().map(of).collect()
}

#[test]
fn what_clients_counted_is_kept_to_the_request_through_restarts_in_the_midst() {
    const CLIENTS: usize = 2;
    let installation = Installation::with("[usage]\nflush_every = \"1s\"\n");
    let customers = ["acme", "bob", "carol"].map(|account| installation.customer(account));
    let mut counted = vec![Counted::new(); customers.len()];
    for round in 0..4 {
        // Two gateways on one store; the second ends first in every other round.
        let servers = [installation.serve(), installation.serve()];
        let ends = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut clients = Vec::new();
            for (number, customer) in customers.iter().enumerate() {
                for server in &servers {
                    for _ in 0..CLIENTS / 2 {
                        let ends = &ends;
                        clients.push((number, scope.spawn(move || ask(server, customer, ends))));
                    }
                }
            }
            let answered = |server: &Server| server.logged("http.version");
            until("the gateways are at work", || servers.iter().all(|server| answered(server) > 100));
            if round % 2 == 0 {
                // Some of it is written while clients are at it.
                std::thread::sleep(Duration::from_millis(1200));
            }
            servers.iter().rev().for_each(|server| server.process.signal(Signal::TERM));
            servers.iter().for_each(|server| server.until_logged("asked to end"));
            ends.store(true, Ordering::SeqCst);
            for (number, client) in clients {
                for (status, (requests, bytes)) in client.join().expect("a client") {
                    let held = counted[number].entry(status).or_default();
                    *held = (held.0 + requests, held.1 + bytes);
                }
            }
        });
        for server in servers {
            let done = server.process.end();
            assert_eq!(done.code(), Some(0), "{done}");
        }
        for (customer, counted) in customers.iter().zip(&counted) {
            assert_eq!(kept(&installation, &customer.account), *counted, "{} in round {round}", customer.account);
            assert!(counted["2xx"].0 > 10 && counted["4xx"].0 > 5, "{counted:?}");
        }
    }
    installation.ok(&["check"]);
}

/// Whoever asks a second time does not want to wait for requests; what was answered is written all the same.
#[test]
fn an_end_that_does_not_wait_for_requests_writes_what_was_counted() {
    let installation = Installation::with("[usage]\nflush_every = \"10m\"\n[server]\nshutdown_grace = \"1h\"\n");
    let acme = installation.customer("acme");
    let server = installation.serve();
    let token = server.client().with_key(&acme.key).token();
    for _ in 0..5 {
        assert_eq!(server.client().status("/sample/a", &token), 200);
    }
    // A request that never comes to its end.
    let mut connection = server.client().connect().expect("a connection");
    let head = format!(
        "POST /sample/a HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\ncontent-length: 10\r\n\
         expect: 100-continue\r\n\r\n",
        bearer(&token)
    );
    connection.send(head.as_bytes()).expect("sent");
    assert_eq!(connection.answer().expect("an interim answer").status, 100);
    server.process.signal(Signal::TERM);
    server.until_logged("asked to end");
    server.process.signal(Signal::TERM);
    let done = server.process.end();
    assert_eq!(done.code(), Some(0), "{done}");
    assert_eq!(kept(&installation, "acme")["2xx"].0, 6);
}

/// A kill loses what was counted since the last flush, and nothing before it.
#[test]
fn a_kill_loses_no_more_than_what_was_not_written() {
    let installation = Installation::with("[usage]\nflush_every = \"1s\"\n");
    let acme = installation.customer("acme");
    let server = installation.serve();
    let token = server.client().with_key(&acme.key).token();
    for _ in 0..9 {
        assert_eq!(server.client().status("/sample/a", &token), 200);
    }
    until("it is written", || kept(&installation, "acme").get("2xx").is_some_and(|(requests, _)| *requests == 10));
    server.kill();
    assert_eq!(kept(&installation, "acme")["2xx"].0, 10);
    let server = installation.serve();
    assert_eq!(server.client().status("/sample/a", &token), 200);
    server.stop();
    assert_eq!(kept(&installation, "acme")["2xx"].0, 11);
    installation.ok(&["check"]);
}
