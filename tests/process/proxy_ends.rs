//! How a gateway that passes requests on ends, is killed, and is given another configuration.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::Method;
use http_body_util::BodyExt;
use rustix::process::Signal;

use crate::backend::Backend;
use crate::caller::{close_code, drain, soon, whole};
use crate::https::bearer;
use crate::installation::{Installation, SERVE, Server};
use crate::poll::until;
use crate::scene::{Scene, route_to};

fn with_socket(installation: &Installation) -> String {
    let socket = installation.path("authz.sock");
    format!("[forward_auth]\nunix_socket = {socket:?}\n\n")
}

#[test]
fn sigterm_ends_streams_and_tunnels_and_lets_requests_finish() {
    let backend = Backend::start();
    let installation = Installation::new();
    let socket = installation.path("authz.sock");
    let config = format!(
        "[server]\nshutdown_grace = \"20s\"\n\n{}{}",
        with_socket(&installation),
        route_to(&[backend.url()], "idle_timeout = \"10m\"\n")
    );
    installation.configure(&config);
    let command = installation.command(SERVE);
    let scene = Scene::of(installation, command);
    assert!(UnixStream::connect(&socket).is_ok(), "the socket is served");

    let (caller, runtime) = (&scene.caller, &scene.runtime);
    let mut web_socket = runtime.block_on(caller.web_socket("/api/ws")).expect("a WebSocket");
    let streams: Vec<_> = runtime.block_on(async {
        let mut streams = Vec::new();
        for mut line in [caller.one().await, caller.two().await] {
            let request = caller.request(Method::GET, "/api/events", Body::empty());
            let mut body = line.send(request).await.expect("an answer").into_body();
            body.frame().await.expect("an event").expect("an event");
            streams.push((line, body));
        }
        streams
    });
    let mut waiting = Vec::new();
    for mut line in runtime.block_on(async { [caller.one().await, caller.two().await] }) {
        let request = caller.request(Method::GET, "/api/wait", Body::empty());
        waiting.push(runtime.spawn(async move { whole(line.send(request).await?).await }));
    }
    let mut upload = scene.server.client().connect().expect("a connection");
    let head = format!(
        "POST /api/upload HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\ncontent-length: 10\r\n\r\nfirst",
        bearer(&scene.token)
    );
    upload.send(head.as_bytes()).expect("sent");
    until("all are at the upstream", || scene.of_upstream("requests_in_flight") == 6.0);
    until("half an upload is there", || backend.bytes() == 5);

    let asked = Instant::now();
    scene.server.process.signal(Signal::TERM);
    let code = runtime.block_on(soon("a Close", close_code(&mut web_socket))).expect("a Close");
    assert_eq!(code, 1001);
    for (line, body) in streams {
        let ended = runtime.block_on(soon("the end of a stream", drain(body)));
        assert!(ended.is_err(), "a stream that is cut off does not look whole: {ended:?}");
        drop(line);
    }
    println!("streams and tunnels ended {:?} after SIGTERM", asked.elapsed());
    backend.seen.go_on.add_permits(2);
    for waiting in waiting {
        let answer = runtime.block_on(soon("an answer", waiting)).expect("no panic").expect("an answer");
        assert_eq!((answer.status, &answer.body[..]), (200, &b"wait 0"[..]));
    }
    upload.send(b"later").expect("sent");
    let answer = upload.answer().expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "upload 10"));
    drop((upload, web_socket));
    let Server { process, .. } = scene.server;
    let done = process.end();
    println!("it ended {:?} after SIGTERM", done.at - asked);
    assert_eq!(done.code(), Some(0), "{done}");
    assert!(done.at - asked < Duration::from_secs(20), "within the grace");
    assert!(done.stdout.trim_end().ends_with("ended"), "{done}");
    assert!(!socket.exists(), "the socket's file is gone");
    assert_eq!(backend.seen.closes.load(std::sync::atomic::Ordering::Relaxed), 1, "the upstream is told too");
}

#[test]
fn what_never_finishes_is_cut_off_when_the_grace_is_over() {
    let backend = Backend::start();
    let config = format!("[server]\nshutdown_grace = \"1s\"\n\n{}", route_to(&[backend.url()], ""));
    let scene = Scene::new(&config);
    let mut line = scene.runtime.block_on(scene.caller.two());
    let request = scene.caller.request(Method::GET, "/api/wait", Body::empty());
    let waiting = scene.runtime.spawn(async move { line.send(request).await.map(drop) });
    until("it is at the upstream", || scene.of_upstream("requests_in_flight") == 1.0);
    let asked = Instant::now();
    scene.server.process.signal(Signal::TERM);
    let Server { process, .. } = scene.server;
    let done = process.end();
    assert_eq!(done.code(), Some(0), "{done}");
    assert!(done.at - asked >= Duration::from_secs(1) && done.at - asked < Duration::from_secs(10), "{done}");
    assert!(scene.runtime.block_on(soon("its end", waiting)).expect("no panic").is_err());
    until("the upstream is let go", || backend.open() == 0);
}

#[test]
fn a_socket_that_was_left_behind_is_replaced_and_one_that_is_served_is_not() {
    let installation = Installation::new();
    installation.configure(&with_socket(&installation));
    let socket = installation.path("authz.sock");
    let killed = installation.serve();
    assert!(UnixStream::connect(&socket).is_ok());
    killed.kill();
    assert!(socket.exists() && UnixStream::connect(&socket).is_err(), "it is left behind");

    let server = installation.serve();
    assert!(UnixStream::connect(&socket).is_ok(), "it is served again");
    let other = Server::start(installation.command(SERVE)).expect_end();
    println!("{}", other.stderr.trim_end());
    assert_eq!(other.code(), Some(1), "{other}");
    let path = socket.to_str().expect("a path");
    for word in ["forward_auth.unix_socket", path, "another program, or another keybearer, listens there"] {
        assert!(other.stderr.contains(word), "{word}: {other}");
    }
    assert!(UnixStream::connect(&socket).is_ok(), "the first one has it still");
    server.stop();
    assert!(!socket.exists());

    installation.file("authz.sock", "of somebody else");
    let refused = Server::start(installation.command(SERVE)).expect_end();
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(refused.stderr.contains("something that is no socket is there"), "{refused}");
    assert_eq!(std::fs::read(&socket).expect("the file"), b"of somebody else");
}

#[test]
fn upstreams_whose_files_are_missing_are_not_put_into_force() {
    let backend = Backend::start();
    let good = route_to(&[backend.url()], "");
    let scene = Scene::new(&good);
    let get = |path: &str| scene.server.client().status(path, &scene.token);
    assert_eq!(get("/api/quick"), 200);
    let missing = scene.installation.path("missing-ca.pem");
    let bad = format!(
        "{}[upstreams.tls]\nca_file = {missing:?}\n\n[[routes]]\nid = \"added\"\npath = \"/added/*\"\ngroups = []\n\
         resource = \"time\"\n",
        route_to(&["https://localhost:1".to_owned()], "")
    );
    scene.installation.configure(&bad);
    scene.server.process.signal(Signal::HUP);
    scene.server.until_logged("the new upstreams cannot be used, and all stays");
    let log = scene.server.process.stdout();
    let line = log.lines().find(|line| line.contains("all stays")).expect("the line");
    println!("{line}");
    for word in ["upstream api", missing.to_str().expect("a path"), "does not exist", "correct the path"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert_eq!((get("/api/quick"), get("/added/x")), (200, 404), "all stays");

    // A reload under way drops no request: the old upstream ends with its last one.
    let mut line = scene.runtime.block_on(scene.caller.two());
    let request = scene.caller.request(Method::GET, "/api/wait", Body::empty());
    let waiting = scene.runtime.spawn(async move { whole(line.send(request).await?).await });
    until("it is at the upstream", || scene.of_upstream("requests_in_flight") == 1.0);
    let other = Backend::start();
    scene.installation.configure(&route_to(&[other.url()], ""));
    scene.server.process.signal(Signal::HUP);
    until("the new upstream is in force", || {
        assert_eq!(get("/api/quick"), 200);
        other.requests() > 0
    });
    backend.seen.go_on.add_permits(1);
    let answer = scene.runtime.block_on(soon("its answer", waiting)).expect("no panic").expect("an answer");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"wait 0"[..]));
    until("the old one's connections are closed", || backend.open() == 0);
    scene.server.stop();
}
