//! Names, health and other settings: what changes while an upstream works.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;

use super::*;

/// Answers what the test says.
#[derive(Debug, Default)]
struct Names(Mutex<Option<Vec<SocketAddr>>>);

impl Names {
    fn are(&self, servers: &[&Server]) {
        *self.0.lock().unwrap() = Some(servers.iter().map(|server| server.address).collect());
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        assert_eq!((host, port), ("orders.internal", 80));
        self.0.lock().unwrap().clone().ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

fn named(names: &Arc<Names>) -> Arc<Upstream> {
    let settings = settings(&["http://orders.internal"]);
    let resolver: Arc<dyn Resolve> = names.clone();
    Upstreams::with_resolver(std::slice::from_ref(&settings), resolver).unwrap().get(&settings.id).unwrap()
}

#[tokio::test]
async fn every_address_of_a_name_is_used_and_changes_are_followed() {
    let (one, two, three) = (Server::new(says("1")).await, Server::new(says("2")).await, Server::new(says("3")).await);
    let names = Arc::new(Names::default());
    names.are(&[&one, &two]);
    let upstream = named(&names);
    for _ in 0..4 {
        call(&upstream, get()).await.unwrap();
    }
    assert_eq!((one.asked(), two.asked(), upstream.snapshot().available), (2, 2, 2));
    // Nobody answers: all stays.
    *names.0.lock().unwrap() = None;
    background::look_up(Arc::clone(&upstream.core)).await;
    call(&upstream, get()).await.unwrap();
    names.are(&[]);
    background::look_up(Arc::clone(&upstream.core)).await;
    call(&upstream, get()).await.unwrap();
    assert_eq!((one.asked(), two.asked()), (3, 3));
    // The first goes, another comes; the second keeps its connection.
    names.are(&[&two, &three]);
    background::look_up(Arc::clone(&upstream.core)).await;
    until("the connection to the first is closed", || one.open() == 0).await;
    for _ in 0..4 {
        call(&upstream, get()).await.unwrap();
    }
    assert_eq!((one.asked(), two.asked(), three.asked()), (3, 5, 2));
    assert_eq!((two.accepted(), upstream.snapshot().available), (1, 2));
    ends(upstream).await;
}

#[tokio::test]
async fn a_connection_to_an_address_that_is_gone_ends_with_its_exchange() {
    let (pipes, mut answers) = mpsc::unbounded_channel();
    let server = Server::new(move |_| {
        let (pipe, content) = piped();
        pipes.send(pipe).unwrap();
        async { Ok(Response::new(content)) }
    })
    .await;
    let other = Server::new(says("other")).await;
    let names = Arc::new(Names::default());
    names.are(&[&server]);
    let upstream = named(&names);
    let mut contents = Vec::new();
    let mut pipes = Vec::new();
    for _ in 0..3 {
        contents.push(upstream.send(get(), 7, limits()).await.unwrap().into_body());
        pipes.push(answers.recv().await.unwrap());
    }
    drop(pipes.pop());
    contents.pop().unwrap().collect().await.unwrap();
    assert_eq!(server.open(), 3, "one is idle");
    names.are(&[&other]);
    background::look_up(Arc::clone(&upstream.core)).await;
    for left in [2, 1] {
        until("what is idle is closed", || server.open() == left).await;
        let pipe = pipes.pop().unwrap();
        pipe.send(data("to the end")).unwrap();
        drop(pipe);
        assert_eq!(contents.pop().unwrap().collect().await.unwrap().to_bytes(), "to the end");
    }
    until("all are closed", || server.open() == 0).await;
    ends(upstream).await;
}

#[tokio::test]
async fn a_name_without_an_address_is_looked_for_again_soon() {
    let server = Server::new(says("hello")).await;
    let names = Arc::new(Names::default());
    let upstream = named(&names);
    assert!(matches!(call(&upstream, get()).await, Err(SendError::AllDown)));
    names.are(&[&server]);
    until("it has an address", || upstream.snapshot().available == 1).await;
    assert_eq!(call(&upstream, get()).await.unwrap(), "hello");
    ends(upstream).await;
}

#[tokio::test]
async fn an_unhealthy_target_gets_nothing_until_it_is_healthy() {
    let is_good = Arc::new(AtomicBool::new(true));
    let good = Arc::clone(&is_good);
    let server = Server::new(move |request: Request<Incoming>| {
        let status = match request.uri().path() {
            "/healthz" if !good.load(Ordering::SeqCst) => 500,
            _ => 200,
        };
        assert!(request.uri().path() != "/healthz" || request.headers()["host"] != "api.example.com");
        async move { Ok(Response::builder().status(status).body(Body::from("hello")).unwrap()) }
    })
    .await;
    let health = HealthCheck { path: "/healthz".into(), interval: Duration::from_millis(30), ..HealthCheck::default() };
    let settings = UpstreamSettings { health: Some(health), ..settings(&[&server.url()]) };
    let upstreams = Upstreams::new(std::slice::from_ref(&settings)).unwrap();
    upstreams.start();
    let upstream = upstreams.get(&settings.id).unwrap();
    assert_eq!(call(&upstream, get()).await.unwrap(), "hello");
    is_good.store(false, Ordering::SeqCst);
    until("it is unhealthy", || upstream.snapshot().unhealthy == 1).await;
    let error = call(&upstream, get()).await.unwrap_err();
    assert_eq!(error.word(), "upstream_down");
    is_good.store(true, Ordering::SeqCst);
    until("it is healthy", || upstream.snapshot().available == 1).await;
    assert_eq!(call(&upstream, get()).await.unwrap(), "hello");
    assert!(server.accepted() <= 2, "checks use connections again");
    drop(upstreams);
    ends(upstream).await;
}

#[tokio::test]
async fn only_what_changed_begins_anew() {
    let server = Server::new(says("hello")).await;
    let same = settings(&[&server.url()]);
    let id: UpstreamId = "billing".parse().unwrap();
    let other = UpstreamSettings { id: id.clone(), ..same.clone() };
    let upstreams = Upstreams::new(&[same.clone(), other.clone()]).unwrap();
    let (kept, old) = (upstreams.get(&same.id).unwrap(), upstreams.get(&id).unwrap());
    let response = old.send(get(), 7, limits()).await.unwrap();
    let changed = UpstreamSettings { retries: 0, ..other.clone() };
    upstreams.reload(&[same.clone(), changed.clone()]).unwrap();
    assert!(Arc::ptr_eq(&kept, &upstreams.get(&same.id).unwrap()));
    assert!(!Arc::ptr_eq(&old, &upstreams.get(&id).unwrap()));
    // Faulty settings change nothing.
    let tls = UpstreamTls { ca_file: Some("/nowhere/ca.pem".into()), ..UpstreamTls::default() };
    let faulty = UpstreamSettings { tls, targets: vec!["https://orders".parse().unwrap()], ..changed };
    let errors = upstreams.reload(&[faulty]).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(
        errors[0].to_string(),
        "upstream billing: /nowhere/ca.pem does not exist; correct the path, or put the file there"
    );
    assert!(Arc::ptr_eq(&kept, &upstreams.get(&same.id).unwrap()));
    // The old one ends with its last request.
    let counters = Arc::clone(&old.core.counters);
    drop(old);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    until("its connections are closed", || counters.connections.load(Ordering::SeqCst) == 0).await;
    upstreams.reload(std::slice::from_ref(&same)).unwrap();
    assert!(upstreams.get(&id).is_none());
    assert_eq!(upstreams.snapshots().len(), 1);
    drop(upstreams);
    ends(kept).await;
}
