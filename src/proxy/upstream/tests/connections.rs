//! Connections: used again, closed, counted.

use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Server::new(says("hello")).await;
    let upstream = upstream(settings(&[&server.url()]));
    for _ in 0..20 {
        assert_eq!(call(&upstream, get()).await.unwrap(), "hello");
    }
    assert_eq!((server.accepted(), server.asked()), (1, 20));
    let snapshot = upstream.snapshot();
    assert_eq!((snapshot.connections, snapshot.in_flight, snapshot.available), (1, 0, 1));
    ends(upstream).await;
}

#[tokio::test]
async fn a_request_reaches_the_target_as_it_was_sent() {
    let server = Server::new(|request: Request<Incoming>| async move {
        let text = format!(
            "{} {} {:?} {:?}",
            request.method(),
            request.uri(),
            request.version(),
            request.headers().get("host").unwrap()
        );
        let content = request.into_body().collect().await.unwrap().to_bytes();
        Ok(Response::new(Body::from(text + " " + std::str::from_utf8(&content).unwrap())))
    })
    .await;
    let client = upstream(settings(&[&server.url()]));
    assert_eq!(call(&client, get()).await.unwrap(), "GET /some/path?x=1 HTTP/1.1 \"api.example.com\" ");
    assert_eq!(call(&client, post("abc")).await.unwrap(), "POST /orders HTTP/1.1 \"api.example.com\" abc");
    let target = upstream(UpstreamSettings { host: HostHeader::Target, ..settings(&[&server.url()]) });
    let expected = format!("GET /some/path?x=1 HTTP/1.1 \"{}\" ", server.address);
    assert_eq!(call(&target, get()).await.unwrap(), expected);
    ends(client).await;
    ends(target).await;
}

#[tokio::test]
async fn an_answer_that_is_not_read_to_its_end_closes_its_connection() {
    let (pipes, mut answers) = mpsc::unbounded_channel();
    let server = Server::new(move |_| {
        let (pipe, content) = piped();
        pipe.send(data("some")).unwrap();
        pipes.send(pipe).unwrap();
        async { Ok(Response::new(content)) }
    })
    .await;
    let upstream = upstream(settings(&[&server.url()]));
    for number in 1..4 {
        let mut content = upstream.send(get(), 7, limits()).await.unwrap().into_body();
        let _goes_on = answers.recv().await.unwrap();
        assert!(content.frame().await.unwrap().is_ok());
        assert_eq!(upstream.snapshot().in_flight, 1);
        drop(content);
        assert_eq!(upstream.snapshot().in_flight, 0);
        until("the connection is closed", || server.open() == 0 && upstream.snapshot().connections == 0).await;
        assert_eq!(server.accepted(), number, "each has its own");
    }
    ends(upstream).await;
}

#[tokio::test]
async fn a_request_that_is_given_up_closes_its_connection() {
    let server = Server::new(|_| std::future::pending()).await;
    let upstream = upstream(settings(&[&server.url()]));
    let task = tokio::spawn({
        let upstream = Arc::clone(&upstream);
        async move { call(&upstream, get()).await }
    });
    until("it is asked", || server.asked() == 1).await;
    assert_eq!(upstream.snapshot().in_flight, 1);
    task.abort();
    until("all is over", || server.open() == 0 && upstream.snapshot().connections == 0).await;
    assert_eq!(upstream.snapshot().in_flight, 0);
    ends(upstream).await;
}

#[tokio::test]
async fn idle_connections_expire() {
    let server = Server::new(says("hello")).await;
    let keep_alive = Duration::from_millis(100);
    let upstream = upstream(UpstreamSettings { keep_alive, ..settings(&[&server.url()]) });
    call(&upstream, get()).await.unwrap();
    until("it is closed", || server.open() == 0 && upstream.snapshot().connections == 0).await;
    call(&upstream, get()).await.unwrap();
    assert_eq!(server.accepted(), 2);
    ends(upstream).await;
}

#[tokio::test]
async fn nothing_is_kept_when_nothing_is_to_be_kept() {
    let server = Server::new(says("hello")).await;
    let upstream = upstream(UpstreamSettings { keep_alive: Duration::ZERO, ..settings(&[&server.url()]) });
    for _ in 0..3 {
        call(&upstream, get()).await.unwrap();
    }
    assert_eq!(server.accepted(), 3);
    ends(upstream).await;
}

#[tokio::test]
async fn a_connection_that_the_target_closed_is_not_used() {
    let (address, _thread) = thread(|_, stream| {
        let request = read_request(stream);
        let content = request.rsplit("\r\n").next().unwrap();
        write(stream, &format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{content}", content.len()));
    });
    let upstream = upstream(UpstreamSettings { retries: 0, ..settings(&[&format!("http://{address}")]) });
    for _ in 0..3 {
        assert_eq!(call(&upstream, post("content")).await.unwrap(), "content");
        until("it is closed", || upstream.snapshot().connections == 0).await;
    }
    ends(upstream).await;
}

/// The target closes an idle connection, and the next request is on its way to it before that is noticed.
#[tokio::test]
async fn a_connection_closed_while_idle_loses_no_request_not_even_a_post() {
    let server = Server::new(|request: Request<Incoming>| async move {
        Ok(Response::new(Body::from(request.into_body().collect().await.unwrap().to_bytes())))
    })
    .await;
    // No attempts anew are allowed: this must not need one.
    let upstream = upstream(UpstreamSettings { retries: 0, ..settings(&[&server.url()]) });
    let pool = &upstream.core.endpoints.load()[0].pool;
    let mut stale = Vec::new();
    for _ in 0..3 {
        let (ours, theirs) = tokio::io::duplex(1024);
        let (sender, mut connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
        assert!(!std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut connection).poll(cx).is_ready())).await);
        pool.give_back(pool::Connection::Http1(pool::Own::alone(sender)));
        drop(theirs);
        stale.push(connection);
    }
    let noticed = async {
        for connection in stale.into_iter().rev() {
            drop(connection.await);
        }
    };
    let (answer, ()) = tokio::join!(call(&upstream, post("content")), noticed);
    assert_eq!(answer.unwrap(), "content");
    assert_eq!((server.asked(), upstream.snapshot().retries, upstream.snapshot().available), (1, 0, 1));
    ends(upstream).await;
}

#[tokio::test]
async fn there_is_a_most_at_once() {
    let (pipes, mut answers) = mpsc::unbounded_channel();
    let server = Server::new(move |_| {
        let (pipe, content) = piped();
        pipes.send(pipe).unwrap();
        async { Ok(Response::new(content)) }
    })
    .await;
    let upstream = upstream(UpstreamSettings { max_requests: 1, ..settings(&[&server.url()]) });
    let first = upstream.send(get(), 7, limits()).await.unwrap();
    let error = upstream.send(get(), 7, limits()).await.unwrap_err();
    assert!(matches!(error, SendError::Overloaded));
    assert_eq!(error.word(), "upstream_full");
    drop(answers.recv().await.unwrap());
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "");
    assert!(upstream.send(get(), 7, limits()).await.is_ok());
    assert_eq!(server.asked(), 2);
    ends(upstream).await;
}

#[tokio::test]
async fn trailers_pass() {
    let server = Server::new(|request: Request<Incoming>| async move {
        let came = request.into_body().collect().await.unwrap().trailers().cloned().unwrap();
        let (pipe, content) = piped();
        pipe.send(data("hello")).unwrap();
        pipe.send(Ok(Frame::trailers(came))).unwrap();
        Ok(Response::builder().header("trailer", "x-sum").body(content).unwrap())
    })
    .await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let upstream = upstream(UpstreamSettings { protocol, ..settings(&[&server.url()]) });
        let (pipe, content) = piped();
        pipe.send(data("question")).unwrap();
        pipe.send(Ok(Frame::trailers([("x-sum".parse().unwrap(), "42".parse().unwrap())].into_iter().collect())))
            .unwrap();
        drop(pipe);
        let mut request = post("").map(|_| content);
        request.headers_mut().insert("trailer", "x-sum".parse().unwrap());
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        let response = upstream.send(request, 7, limits()).await.unwrap();
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "42", "{protocol:?}");
        assert_eq!(collected.to_bytes(), "hello");
        ends(upstream).await;
    }
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_that_counts_until_it_ends() {
    let server = Server::new(|mut request: Request<Incoming>| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut tunnel = TokioIo::new(upgrade.await.unwrap());
            let mut bytes = [0; 4];
            tunnel.read_exact(&mut bytes).await.unwrap();
            tunnel.write_all(&bytes).await.unwrap();
            // Until the other side ends it.
            drop(tunnel.read(&mut bytes).await);
        });
        let answer = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
        Ok(answer.body(Body::empty()).unwrap())
    })
    .await;
    let upstream = upstream(settings(&[&server.url()]));
    let mut request = get();
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "echo".parse().unwrap());
    request.extensions_mut().insert(WantsUpgrade);
    let mut response = upstream.send(request, 7, limits()).await.unwrap();
    assert_eq!(response.status(), 101);
    let upgrade = hyper::upgrade::on(&mut response);
    let lease = response.into_body().into_lease().expect("a tunnel has one");
    let mut tunnel = TokioIo::new(upgrade.await.unwrap());
    tunnel.write_all(b"ping").await.unwrap();
    let mut bytes = [0; 4];
    tunnel.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"ping");
    assert_eq!((upstream.snapshot().in_flight, upstream.snapshot().connections), (1, 1));
    drop(tunnel);
    drop(lease);
    assert_eq!((upstream.snapshot().in_flight, upstream.snapshot().connections), (0, 0));
    ends(upstream).await;
}

#[tokio::test]
async fn nobody_switches_protocols_unasked() {
    let (address, _thread) = thread(|_, stream| {
        read_request(stream);
        write(stream, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
    });
    let upstream = upstream(settings(&[&format!("http://{address}")]));
    let error = call(&upstream, get()).await.unwrap_err();
    assert_eq!(error.word(), "upstream_protocol");
    ends(upstream).await;
}

/// Requests from many tasks on several threads, of which some are given up in every state they can be in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaks_in_a_crowd() {
    let server = Server::new(|request: Request<Incoming>| async move {
        if request.uri().path() == "/break" { Err(Break) } else { Ok(Response::new(Body::from(vec![0; 100_000]))) }
    })
    .await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let upstream = upstream(UpstreamSettings { protocol, ..settings(&[&server.url()]) });
        let mut tasks = JoinSet::new();
        for task in 0..16u64 {
            let upstream = Arc::clone(&upstream);
            tasks.spawn(async move {
                for number in 0..60 {
                    let mut request = get();
                    match (task + number) % 5 {
                        0 => {
                            let given_up = upstream.send(request, task, limits());
                            drop(tokio::time::timeout(Duration::from_micros(100 * number), given_up).await);
                        }
                        1 => {
                            let mut content = upstream.send(request, task, limits()).await.unwrap().into_body();
                            drop(content.frame().await);
                        }
                        2 => {
                            *request.uri_mut() = "/break".parse().unwrap();
                            upstream.send(request, task, limits()).await.unwrap_err();
                        }
                        _ => assert_eq!(call(&upstream, request).await.unwrap().len(), 100_000),
                    }
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        ends(upstream).await;
        until("the server sees it", || server.open() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_needs_few_connections() {
    let server = Server::new(says("hello")).await;
    let upstream = upstream(settings(&[&server.url()]));
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let upstream = Arc::clone(&upstream);
        tasks.spawn(async move {
            for _ in 0..300 {
                assert_eq!(call(&upstream, get()).await.unwrap(), "hello");
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert!(server.accepted() <= 40, "{} for 2400 requests, 8 at once", server.accepted());
    ends(upstream).await;
}

/// What was begun to be written would be written to the end before the connection is closed, and one that takes nothing would
/// keep it.
#[tokio::test]
async fn a_target_that_takes_nothing_does_not_keep_its_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = upstream(settings(&[&format!("http://{}", listener.local_addr().unwrap())]));
    let endless = Body::new(Endless);
    let sending = tokio::spawn({
        let upstream = Arc::clone(&upstream);
        async move { upstream.send(post("").map(|_| endless), 7, limits()).await.map(drop) }
    });
    let (_held, _) = listener.accept().await.unwrap();
    until("it is connected", || upstream.snapshot().connections == 1).await;
    sending.abort();
    until("its connection is closed", || upstream.snapshot().connections == 0).await;
    ends(upstream).await;
}

/// Content without end.
struct Endless;

impl http_body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        Poll::Ready(Some(Ok(http_body::Frame::data(bytes::Bytes::from_static(&[0; 4096])))))
    }
}
