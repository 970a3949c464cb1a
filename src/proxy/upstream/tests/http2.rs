//! HTTP/2: connections that requests share.

use tokio::sync::Semaphore;

use super::*;

fn http2(server: &Server) -> UpstreamSettings {
    UpstreamSettings { protocol: Protocol::Http2, ..settings(&[&server.url()]) }
}

#[tokio::test]
async fn many_requests_at_once_share_few_connections() {
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let server = Server::new(move |request: Request<Incoming>| {
        let waits = Arc::clone(&waits);
        async move {
            assert_eq!(request.version(), http::Version::HTTP_2);
            assert_eq!(request.uri(), "http://api.example.com/some/path?x=1");
            assert_eq!(request.headers().get("host"), None);
            waits.acquire().await.unwrap().forget();
            Ok(Response::new("hello".into()))
        }
    })
    .await;
    let upstream = upstream(http2(&server));
    let mut calls = JoinSet::new();
    for _ in 0..250 {
        let upstream = Arc::clone(&upstream);
        calls.spawn(async move { call(&upstream, get()).await });
    }
    until("all are asked at once", || server.asked() == 250).await;
    assert_eq!(server.accepted(), 3, "a hundred each");
    gate.add_permits(250);
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.unwrap().unwrap(), "hello");
    }
    assert_eq!(upstream.snapshot().in_flight, 0);
    ends(upstream).await;
}

#[tokio::test]
async fn a_failing_target_is_waited_for_once_by_all() {
    // It accepts and says nothing; the time to connect ends all of them together, not one after the other.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("https://{}", listener.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let tls = UpstreamTls { ca_file: Some(super::tls::authority(folder.path()).file), ..UpstreamTls::default() };
    let connect_timeout = Duration::from_millis(500);
    let upstream = upstream(UpstreamSettings { connect_timeout, tls, ..settings(&[&target]) });
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let upstream = Arc::clone(&upstream);
        calls.spawn(async move { call(&upstream, get()).await });
    }
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.unwrap().unwrap_err().word(), "upstream_connect_timeout");
    }
    assert!(began.elapsed() < connect_timeout * 20, "50 s when they queue up");
    ends(upstream).await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_to_its_end_leaves_the_connection_to_others() {
    let (pipes, mut answers) = mpsc::unbounded_channel();
    let server = Server::new(move |_| {
        let (pipe, content) = piped();
        pipe.send(data("some")).unwrap();
        pipes.send(pipe).unwrap();
        async { Ok(Response::new(content)) }
    })
    .await;
    let upstream = upstream(http2(&server));
    for _ in 0..3 {
        let mut content = upstream.send(get(), 7, limits()).await.unwrap().into_body();
        assert!(content.frame().await.unwrap().is_ok());
        drop(content);
        answers.recv().await.unwrap().closed().await;
    }
    assert_eq!((server.accepted(), upstream.snapshot().in_flight), (1, 0));
    ends(upstream).await;
}

#[tokio::test]
async fn idle_connections_expire_and_used_ones_do_not() {
    let (pipes, mut answers) = mpsc::unbounded_channel();
    let server = Server::new(move |_| {
        let (pipe, content) = piped();
        pipes.send(pipe).unwrap();
        async { Ok(Response::new(content)) }
    })
    .await;
    let upstream = upstream(UpstreamSettings { keep_alive: Duration::from_millis(50), ..http2(&server) });
    let content = upstream.send(get(), 7, limits()).await.unwrap().into_body();
    let pipe = answers.recv().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    pipe.send(data("late")).unwrap();
    drop(pipe);
    assert_eq!(content.collect().await.unwrap().to_bytes(), "late");
    until("it is closed", || server.open() == 0 && upstream.snapshot().connections == 0).await;
    ends(upstream).await;
}

/// What HTTP/2 has made of a request is undone when the next target speaks HTTP/1.1, and the other way round.
#[tokio::test]
async fn a_request_changes_its_form_with_the_protocol() {
    let server = Server::new(|request: Request<Incoming>| async move {
        let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
        Ok(Response::new(Body::from(format!("{} {host:?}", request.uri()))))
    })
    .await;
    let one = upstream(settings(&[&server.url()]));
    let two = upstream(http2(&server));
    let endpoint = |upstream: &Upstream| Arc::clone(&upstream.core.endpoints.load()[0]);
    let connection = |upstream: &Arc<Upstream>| {
        let endpoint = endpoint(upstream);
        async move { endpoint.pool.checkout(endpoint.wanted(false)).await.unwrap().connection }
    };
    let (http1, http2) = (connection(&one).await, connection(&two).await);
    let mut request = get();
    for _ in 0..2 {
        super::super::send::shape(&mut request, &http2, &endpoint(&two)).unwrap();
        assert_eq!(request.uri(), "http://api.example.com/some/path?x=1");
        assert!(request.headers().is_empty());
        super::super::send::shape(&mut request, &http1, &endpoint(&one)).unwrap();
        assert_eq!(request.uri(), "/some/path?x=1");
        assert_eq!(request.headers()["host"], "api.example.com");
    }
    drop((http1, http2));
    ends(one).await;
    ends(two).await;
}
