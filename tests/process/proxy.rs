//! Upstreams that end, return, move, are slow or say nothing; clients that trickle or go away.

use std::fs;
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::Method;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend::{Backend, PAUSE, Trickle, Zeros};
use crate::caller::{Line, drain, soon, whole};
use crate::https::{Client, Connection, bearer};
use crate::installation::{Installation, SERVE, finish};
use crate::poll::{until, until_some};
use crate::scene::{Scene, route_to};

/// What takes longer hangs, though every limit of the configuration is shorter.
const HANG: Duration = Duration::from_secs(5);

/// One request of a client under load.
#[derive(Debug)]
struct Outcome {
    began: Instant,
    took: Duration,
    method: &'static str,
    answer: Result<u16, String>,
}

impl Outcome {
    fn is_good(&self) -> bool {
        self.answer == Ok(200)
    }
}

/// Clients that ask again and again.
struct Load {
    stop: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(scene: &Scene, clients: usize, methods: &'static [&'static str]) -> Self {
        let (stop, outcomes) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let threads = (0..clients).map(|_| {
            let (client, token) = (scene.server.client(), scene.token.clone());
            let (stop, outcomes) = (Arc::clone(&stop), Arc::clone(&outcomes));
            std::thread::spawn(move || {
                let mut connection = None;
                for method in methods.iter().copied().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let began = Instant::now();
                    let answer = once(&client, &mut connection, method, &token);
                    if answer.is_err() {
                        connection = None;
                    }
                    let answer = answer.map_err(|error| error.to_string());
                    outcomes.lock().unwrap().push(Outcome { began, took: began.elapsed(), method, answer });
                }
            })
        });
        let threads = threads.collect();
        Self { stop, outcomes, threads }
    }

    fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.outcomes.lock().unwrap().iter().filter(|outcome| which(outcome)).count()
    }

    fn end(self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        std::mem::take(&mut *self.outcomes.lock().unwrap())
    }
}

/// One request; an answer that is neither whole nor a problem is an error.
fn once(client: &Client, kept: &mut Option<Connection>, method: &str, token: &str) -> io::Result<u16> {
    if kept.is_none() {
        *kept = Some(client.connect()?);
    }
    let connection = kept.as_mut().expect("a connection");
    let content = if method == "POST" { "hello" } else { "" };
    let length = if method == "POST" { "content-length: 5\r\n" } else { "" };
    let head = format!(
        "{method} /api/quick HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\n{length}\r\n{content}",
        bearer(token)
    );
    connection.send(head.as_bytes())?;
    let answer = connection.answer()?;
    match answer.status {
        200 if answer.text() == format!("quick {}", content.len()) => Ok(200),
        502..=504 if answer.text().contains("\"urn:keybearer:problem:") => Ok(answer.status),
        status => Err(io::Error::other(format!("{status}: {}", answer.text()))),
    }
}

const QUICK_EJECTION: &str = "connect_timeout = \"1s\"\nresponse_timeout = \"2s\"\n\
                              [upstreams.ejection]\nfailures = 3\ntime = \"1s\"\nreturn_over = \"1s\"\n";

#[test]
fn an_upstream_that_is_killed_under_load_is_refused_for_and_serves_again_when_it_is_back() {
    let backend = Backend::start();
    let address = backend.address;
    let scene = Scene::new(&route_to(&[backend.url()], QUICK_EJECTION));
    let load = Load::start(&scene, 8, &["GET", "POST"]);
    until("all is well", || load.count(Outcome::is_good) >= 100);

    let killed = Instant::now();
    backend.kill();
    until("requests are refused", || load.count(|outcome| outcome.answer.as_ref().is_ok_and(|s| *s >= 502)) >= 100);
    let backend = Backend::at(address);
    let back = Instant::now();
    until("requests are answered again", || load.count(|it| it.began > back && it.is_good()) >= 200);
    let outcomes = load.end();

    let mut refused = std::collections::BTreeMap::new();
    for outcome in &outcomes {
        let status = outcome.answer.as_ref().unwrap_or_else(|_| panic!("{outcome:?}"));
        *refused.entry(*status).or_insert(0) += 1;
        assert!(outcome.took < HANG, "{outcome:?}");
        assert!(outcome.is_good() || outcome.began + outcome.took > killed, "before it was killed: {outcome:?}");
        // An address that was left out is used where there is no other, so it is found again at once.
        assert!(outcome.is_good() || outcome.began < back, "after it was back: {outcome:?}");
    }
    let longest = outcomes.iter().map(|outcome| outcome.took).max();
    println!("away for {:?}: answers by status {refused:?}, the longest took {longest:?}", back - killed);
    assert!(scene.of_upstream("ejections_total") >= 1.0);
    drop(backend);
    scene.server.stop();
}

#[test]
fn with_a_second_target_nothing_of_a_killed_one_is_noticed() {
    let (backend, other) = (Backend::start(), Backend::start());
    let address = backend.address;
    let scene = Scene::new(&route_to(&[backend.url(), other.url()], QUICK_EJECTION));
    let load = Load::start(&scene, 8, &["GET"]);
    until("both are used", || backend.requests() >= 50 && other.requests() >= 50);
    backend.kill();
    until("it is left out", || scene.endpoints("ejected") == 1.0);
    let before = load.count(|_| true);
    until("the other one has it all", || load.count(|_| true) >= before + 200);
    let backend = Backend::at(address);
    until("it has its share again", || backend.requests() >= 50);
    until("and its whole share", || scene.endpoints("available") == 2.0);
    let outcomes = load.end();
    for outcome in &outcomes {
        assert!(outcome.is_good() && outcome.took < HANG, "{outcome:?}");
    }
    assert!(outcomes.iter().all(|outcome| outcome.method == "GET"));
    let (retries, ejections) = (scene.of_upstream("retries_total"), scene.of_upstream("ejections_total"));
    println!("{} requests, {retries} of them attempted anew; left out {ejections} times", outcomes.len());
    assert!(retries >= 1.0 && ejections >= 1.0);
    scene.server.stop();
}

const CHECKS: &str = "[upstreams.health]\npath = \"/health\"\ninterval = \"100ms\"\ntimeout = \"1s\"\nhealthy_after = 2\n\
                      unhealthy_after = 2\n";

#[test]
fn when_all_targets_are_down_requests_are_refused_at_once_until_checks_are_good_again() {
    let backends = [Backend::start(), Backend::start()];
    let addresses = [backends[0].address, backends[1].address];
    let scene = Scene::new(&route_to(&[backends[0].url(), backends[1].url()], CHECKS));
    let get = || scene.runtime.block_on(scene.caller.get("/api/quick"));
    assert_eq!(get().status, 200);
    backends.into_iter().for_each(Backend::kill);
    until("they are found unhealthy", || scene.endpoints("unhealthy") == 2.0);
    let began = Instant::now();
    for _ in 0..20 {
        let answer = get();
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.headers.get("retry-after").map(http::HeaderValue::as_bytes), Some(&b"1"[..]), "{answer:?}");
        assert!(answer.problem().is_some(), "{answer:?}");
    }
    println!("20 refusals took {:?}", began.elapsed());
    assert!(began.elapsed() < HANG);
    let ready = scene.server.admin_client().call("GET", "/health/ready", None);
    assert_eq!(ready.status, 200, "the gateway itself is well: {}", ready.text());
    assert_eq!(scene.server.client().call("GET", "/health/ready", None).status, 200);
    let mut health = scene.installation.command(&["health"]);
    health.env("KEYBEARER__SERVER__LISTEN", scene.server.https.to_string());
    let health = finish(health, b"");
    assert_eq!(health.code(), Some(0), "{health}");

    let back: Vec<_> = addresses.into_iter().map(Backend::at).collect();
    until("they are found healthy", || scene.endpoints("available") == 2.0);
    assert_eq!(get().status, 200);
    // One that answers and says that it is not well gets nothing.
    back[0].seen.is_well.store(false, Ordering::Relaxed);
    until("it is found unhealthy", || scene.endpoints("unhealthy") == 1.0);
    let before = back[1].requests();
    (0..10).for_each(|_| assert_eq!(get().status, 200));
    assert!(back[1].requests() >= before + 10);
    scene.server.stop();
}

/// The system's own resolver, with a hosts file that only the server sees.
#[test]
fn a_name_that_moves_is_followed() {
    // Who is not root may be it in a namespace of its own.
    let namespaces = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let may = Command::new("unshare").args([namespaces, "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: a mount namespace cannot be made here");
        return;
    }
    let one = Backend::start();
    let port = one.address.port();
    let Some(two) = second_address(port) else { return };
    let name = format!("http://moving.test:{port}");
    let installation = Installation::with(&route_to(&[name], ""));
    let hosts = installation.file("hosts", "127.0.0.1 localhost moving.test\n");
    let plain = installation.command(SERVE);
    let mut command = Command::new("unshare");
    command.args([namespaces, "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(&hosts);
    command.arg(plain.get_program()).args(plain.get_args());
    let scene = Scene::of(installation, command);
    let get = || scene.runtime.block_on(scene.caller.get("/api/quick")).status;
    assert_eq!((get(), one.requests(), two.requests()), (200, 1, 0));

    // In place: it is this file that is mounted, not its name.
    fs::write(&hosts, "127.0.0.1 localhost\n127.0.0.2 moving.test\n").expect("a written file");
    let moved = Instant::now();
    until("requests go to the new address", || {
        assert_eq!(get(), 200);
        two.requests() > 0
    });
    println!("a name that moved was followed after {:?}", moved.elapsed());
    assert!(moved.elapsed() < Duration::from_secs(25));
    let before = one.requests();
    (0..5).for_each(|_| assert_eq!(get(), 200));
    assert_eq!(one.requests(), before, "the old address gets nothing more");

    // A name that nobody knows for a while leads where it led.
    fs::write(&hosts, "127.0.0.1 localhost\n").expect("a written file");
    scene.server.until_logged("those that are known stay in use");
    assert_eq!(get(), 200);
    scene.server.stop();
}

fn second_address(port: u16) -> Option<Backend> {
    let address = std::net::SocketAddr::from(([127, 0, 0, 2], port));
    if std::net::TcpListener::bind(address).is_err() {
        println!("SKIPPED: this machine has no 127.0.0.2, or its port {port} is taken");
        return None;
    }
    Some(Backend::at(address))
}

const SHORT_LIMITS: &str =
    "connect_timeout = \"1s\"\nresponse_timeout = \"1s\"\nidle_timeout = \"1s\"\nkeep_alive = \"1s\"\n";

#[test]
fn a_head_that_trickles_is_given_up() {
    // Until the gateway has closed the connection.
    let backend = Backend::raw(|mut tcp| async move {
        for byte in b"HTTP/1.1 200 OK\r\nx-slow: ".iter().chain(std::iter::repeat(&b'x')) {
            tokio::time::sleep(PAUSE).await;
            if tcp.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    });
    expect_504(&backend);
}

#[test]
fn an_upstream_that_accepts_and_says_nothing_is_given_up() {
    let backend = Backend::raw(|mut tcp| async move { while let Ok(1..) = tcp.read(&mut [0; 1024]).await {} });
    expect_504(&backend);
}

#[track_caller]
fn expect_504(backend: &Backend) {
    let scene = Scene::new(&route_to(&[backend.url()], SHORT_LIMITS));
    for method in [Method::GET, Method::POST] {
        for version in [1, 2] {
            let began = Instant::now();
            let answer = scene.runtime.block_on(async {
                let mut line = if version == 1 { scene.caller.one().await } else { scene.caller.two().await };
                let body = if method == Method::POST { Body::from("hello") } else { Body::empty() };
                let sent = line.send(scene.caller.request(method.clone(), "/api/quick", body));
                whole(soon("an answer", sent).await.expect("an answer")).await.expect("the whole of it")
            });
            let took = began.elapsed();
            assert_eq!(answer.status, 504, "{method} {version}: {answer:?}");
            assert!(answer.problem().is_some(), "{answer:?}");
            assert!(took >= Duration::from_secs(1) && took < HANG, "{took:?}");
        }
    }
    scene.until_at_rest(backend);
    scene.server.stop();
}

#[test]
fn an_upstream_that_takes_no_content_is_given_up() {
    // Held, and never read.
    let backend = Backend::raw(|tcp: TcpStream| async move {
        std::future::pending::<()>().await;
        drop(tcp);
    });
    // What counts is that nothing moves, however long the answer may take.
    let more = "response_timeout = \"10m\"\nidle_timeout = \"1s\"\n[upstreams.ejection]\nfailures = 1\n";
    let scene = Scene::new(&route_to(&[backend.url()], more));
    for version in [1, 2] {
        let began = Instant::now();
        let answer = scene.runtime.block_on(async {
            let mut line = if version == 1 { scene.caller.one().await } else { scene.caller.two().await };
            // More than all the buffers on the way hold.
            let body = Body::new(Zeros { left: 256 << 20 });
            let sent = line.send(scene.caller.request(Method::POST, "/api/upload", body));
            whole(soon("an answer", sent).await.expect("an answer")).await.expect("the whole of it")
        });
        let took = began.elapsed();
        println!("HTTP/{version}: an upload that nobody took was given up after {took:?}");
        assert_eq!(answer.status, 504, "{answer:?}");
        assert!(took >= Duration::from_secs(1) && took < 2 * HANG, "{took:?}");
    }
    // The other end cannot notice: behind bytes that it does not read it does not see the end of the connection.
    until("the upstream is let go", || {
        scene.of_upstream("requests_in_flight") == 0.0 && scene.of_upstream("connections") == 0.0
    });
    scene.server.stop();
}

/// Nobody waits for an upload that is stuck when its token ends.
#[test]
fn an_upload_that_nobody_takes_ends_with_its_token() {
    let backend = Backend::raw(|tcp: TcpStream| async move {
        std::future::pending::<()>().await;
        drop(tcp);
    });
    let more = "response_timeout = \"10m\"\nidle_timeout = \"10m\"\n";
    let scene = Scene::new(&route_to(&[backend.url()], more));
    let mut sending = Vec::new();
    for mut line in scene.runtime.block_on(async { [scene.caller.one().await, scene.caller.two().await] }) {
        let request = scene.caller.request(Method::POST, "/api/upload", Body::new(Zeros { left: 256 << 20 }));
        sending.push(scene.runtime.spawn(async move { whole(line.send(request).await?).await }));
    }
    until("both are at the upstream", || backend.open() == 2);
    let revoked = scene.installation.run(&["tokens", "revoke", "--all"]);
    assert_eq!(revoked.code(), Some(0), "{revoked}");
    for sending in sending {
        let answer = scene.runtime.block_on(soon("its answer", sending)).expect("no panic").expect("an answer");
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    println!("stuck uploads were refused {:?} after the revocation", revoked.at.elapsed());
    assert_eq!(scene.cuts("token_revoked"), 2.0);
    until("the upstream is let go", || {
        scene.of_upstream("requests_in_flight") == 0.0 && scene.of_upstream("connections") == 0.0
    });
    scene.server.stop();
}

/// One that takes requests and does not answer them is as bad as one that is not there.
#[test]
fn a_target_that_does_not_answer_is_left_out() {
    let silent = Backend::raw(|mut tcp| async move { while let Ok(1..) = tcp.read(&mut [0; 1024]).await {} });
    let backend = Backend::start();
    let more = "response_timeout = \"500ms\"\n[upstreams.ejection]\nfailures = 2\ntime = \"10m\"\n";
    let scene = Scene::new(&route_to(&[silent.url(), backend.url()], more));
    let get = || scene.runtime.block_on(scene.caller.get("/api/quick")).status;
    let statuses: Vec<u16> = (0..20).map(|_| get()).collect();
    let given_up = statuses.iter().filter(|status| **status == 504).count();
    assert_eq!((given_up, statuses.len() - given_up), (2, 18), "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 504].contains(status)), "{statuses:?}");
    assert_eq!((scene.endpoints("ejected"), scene.of_upstream("ejections_total")), (1.0, 1.0));
    scene.server.stop();
}

#[test]
fn what_trickles_in_either_direction_goes_through() {
    let backend = Backend::start();
    let scene = Scene::new(&route_to(&[backend.url()], SHORT_LIMITS));
    scene.runtime.block_on(async {
        for mut line in [scene.caller.one().await, scene.caller.two().await] {
            // Three seconds each, three times any limit.
            let request = scene.caller.request(Method::GET, "/api/trickle/15", Body::empty());
            let answer = whole(line.send(request).await.expect("an answer")).await.expect("the whole of it");
            assert_eq!((answer.status, answer.body.len()), (200, 15));
            let body = Body::new(Trickle { left: 15, pause: None });
            let request = scene.caller.request(Method::POST, "/api/upload", body);
            let answer = whole(line.send(request).await.expect("an answer")).await.expect("the whole of it");
            assert_eq!((answer.status, &answer.body[..]), (200, &b"upload 15"[..]));
        }
    });
    scene.until_at_rest(&backend);
    scene.server.stop();
}

/// A client that goes away takes its request with it.
#[test]
fn clients_that_go_away_leave_nothing_behind() {
    let backend = Backend::start();
    // No limit of time ends anything here.
    let more = "response_timeout = \"10m\"\nidle_timeout = \"10m\"\nkeep_alive = \"500ms\"\nretries = 0\n";
    let scene = Scene::new(&route_to(&[backend.url()], more));
    let at_rest = scene.server.metric("keybearer_connections");
    let under_way = || until("it is under way", || scene.of_upstream("requests_in_flight") == 1.0);
    for version in [1, 2] {
        let line = || async { if version == 1 { scene.caller.one().await } else { scene.caller.two().await } };

        // In the midst of an answer.
        let (mut line_kept, body) = scene.runtime.block_on(async {
            let mut line = line().await;
            let request = scene.caller.request(Method::GET, "/api/bytes/100000000000", Body::empty());
            let mut body = line.send(request).await.expect("an answer").into_body();
            body.frame().await.expect("content").expect("content");
            (line, body)
        });
        under_way();
        drop(body);
        if let Line::Two(_) = line_kept {
            // Only the stream ended; the connection goes on.
            scene.until_at_rest(&backend);
            let request = scene.caller.request(Method::GET, "/api/quick", Body::empty());
            assert_eq!(scene.runtime.block_on(line_kept.send(request)).expect("an answer").status(), 200);
        }
        drop(line_kept);
        scene.until_at_rest(&backend);

        // In the midst of its content.
        let before = backend.bytes();
        let mut sender = scene.runtime.block_on(line());
        let body = Body::new(Trickle { left: 1_000_000, pause: None });
        let request = scene.caller.request(Method::POST, "/api/upload", body);
        let sending = scene.runtime.spawn(async move { sender.send(request).await.map(drop) });
        until_some("some of it is there", || (backend.bytes() > before).then_some(()));
        under_way();
        sending.abort();
        scene.until_at_rest(&backend);

        // While it waits for an answer.
        let mut sender = scene.runtime.block_on(line());
        let request = scene.caller.request(Method::GET, "/api/wait", Body::empty());
        let waiting = scene.runtime.spawn(async move { sender.send(request).await.map(drop) });
        under_way();
        waiting.abort();
        scene.until_at_rest(&backend);
    }
    until("the clients' connections are counted out", || scene.server.metric("keybearer_connections") <= at_rest);
    assert_eq!(scene.runtime.block_on(scene.caller.get("/api/quick")).status, 200);
    scene.server.stop();
}

/// A client that stops in the midst of its content is told so, and is the one to blame.
#[test]
fn an_upload_that_stops_is_ended() {
    let backend = Backend::start();
    let more = "response_timeout = \"10m\"\nidle_timeout = \"1s\"\nkeep_alive = \"500ms\"\n";
    let scene = Scene::new(&route_to(&[backend.url()], more));
    let mut connection = scene.server.client().connect().expect("a connection");
    let head = format!(
        "POST /api/upload HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\ncontent-length: 10\r\n\r\nfirst",
        bearer(&scene.token)
    );
    connection.send(head.as_bytes()).expect("sent");
    let answer = connection.answer().expect("an answer");
    assert_eq!(answer.status, 408, "{}", answer.text());
    scene.until_at_rest(&backend);
    assert_eq!(scene.endpoints("available"), 1.0);
    assert_eq!(scene.cuts("idle"), 1.0);
    scene.server.stop();
}

#[test]
fn metrics_tell_how_upstreams_stand() {
    let backend = Backend::start();
    let scene = Scene::new(&route_to(&[backend.url()], "keep_alive = \"500ms\"\nidle_timeout = \"10m\"\n"));
    assert_eq!((scene.endpoints("available"), scene.endpoints("ejected")), (1.0, 0.0));
    assert_eq!((scene.endpoints("returning"), scene.endpoints("unhealthy")), (0.0, 0.0));
    for name in ["requests_in_flight", "connections", "retries_total", "ejections_total"] {
        assert_eq!(scene.of_upstream(name), 0.0, "{name}");
    }
    for reason in ["idle", "token_expired", "token_revoked", "shutdown"] {
        assert_eq!(scene.cuts(reason), 0.0, "{reason}");
    }
    let (line, body) = scene.runtime.block_on(async {
        let mut line = scene.caller.one().await;
        let request = scene.caller.request(Method::GET, "/api/events", Body::empty());
        let mut body = line.send(request).await.expect("an answer").into_body();
        body.frame().await.expect("an event").expect("an event");
        (line, body)
    });
    let web_socket = scene.runtime.block_on(scene.caller.web_socket("/api/ws")).expect("a WebSocket");
    until("both are counted", || scene.of_upstream("requests_in_flight") == 2.0);
    assert_eq!((scene.of_upstream("connections"), scene.server.metric("keybearer_tunnels")), (2.0, 1.0));
    assert_eq!(scene.server.metric("keybearer_flows_under_way"), 1.0);
    let revoked = scene.installation.run(&["tokens", "revoke", "--all"]);
    assert_eq!(revoked.code(), Some(0), "{revoked}");
    until("the stream is cut", || scene.cuts("token_revoked") == 1.0);
    assert!(scene.runtime.block_on(soon("its end", drain(body))).is_err(), "it is no whole answer");
    drop((line, web_socket));
    scene.until_at_rest(&backend);
    // Labels are the operator's words and ours.
    let text = scene.server.admin_client().call("GET", "/metrics", None).text();
    let lines = text.lines().filter(|line| line.starts_with("keybearer_upstream_"));
    assert!(lines.clone().count() == 8 && lines.clone().all(|line| line.contains("upstream=\"api\"")), "{text}");
    scene.server.stop();
}
