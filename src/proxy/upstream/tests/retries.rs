//! Attempts anew: which are safe, and how many there may be.

use super::*;

/// Reads requests and closes without an answer; says how many it read.
fn breaks() -> (String, Arc<AtomicUsize>) {
    let read = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&read);
    let (address, _thread) = thread(move |_, stream| {
        if !read_request(stream).is_empty() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (format!("http://{address}"), read)
}

fn never_ejecting(targets: &[&str]) -> UpstreamSettings {
    UpstreamSettings { ejection: Ejection { failures: 0, ..Ejection::default() }, ..settings(targets) }
}

#[tokio::test]
async fn a_post_that_was_sent_is_not_sent_again() {
    let (broken, read) = breaks();
    let (other, read_by_other) = breaks();
    let upstream = upstream(never_ejecting(&[&broken, &other]));
    for number in 1..5 {
        let error = call(&upstream, post("once")).await.unwrap_err();
        assert_eq!(error.word(), "upstream_broke");
        assert_eq!(read.load(Ordering::SeqCst) + read_by_other.load(Ordering::SeqCst), number);
    }
    // Neither is what is idempotent, but has a content.
    let put = Request::put("/orders").header("host", "a").body(Body::from("once")).unwrap();
    assert_eq!(call(&upstream, put).await.unwrap_err().word(), "upstream_broke");
    assert_eq!(upstream.snapshot().retries, 0);
    ends(upstream).await;
}

#[tokio::test]
async fn a_get_is_sent_again_to_another_target() {
    let (broken, read) = breaks();
    let server = Server::new(says("hello")).await;
    let upstream = upstream(never_ejecting(&[&broken, &server.url()]));
    for _ in 0..6 {
        assert_eq!(call(&upstream, get()).await.unwrap(), "hello");
    }
    assert_eq!(read.load(Ordering::SeqCst), 3, "every other turn");
    assert_eq!((upstream.snapshot().retries, server.asked()), (3, 6));
    ends(upstream).await;
}

#[tokio::test]
async fn no_more_attempts_than_are_set() {
    let (broken, read) = breaks();
    let upstream = upstream(never_ejecting(&[&broken]));
    assert_eq!(call(&upstream, get()).await.unwrap_err().word(), "upstream_broke");
    assert_eq!(read.load(Ordering::SeqCst), 3, "one and two more");
    ends(upstream).await;
}

#[tokio::test]
async fn the_budget_bounds_all_attempts_together() {
    let (broken, read) = breaks();
    let upstream = upstream(UpstreamSettings { retries: 1, retry_budget: 0, ..never_ejecting(&[&broken]) });
    let began = std::time::Instant::now();
    for _ in 0..200 {
        call(&upstream, get()).await.unwrap_err();
    }
    let retries = upstream.snapshot().retries;
    assert_eq!(read.load(Ordering::SeqCst) as u64, 200 + retries);
    let floor = 10.0 + began.elapsed().as_secs_f64() * 10.0;
    assert!((10.0..=floor.ceil()).contains(&(retries as f64)), "{retries} of {floor}");
    ends(upstream).await;
}

#[tokio::test]
async fn a_target_that_refuses_loses_no_request_and_is_left_out_until_it_returns() {
    let server = Server::new(says("hello")).await;
    let absent = nobody();
    let ejection = Ejection { failures: 2, time: Duration::from_secs(600), return_over: Duration::from_secs(600) };
    let upstream = upstream(UpstreamSettings { ejection, ..settings(&[&format!("http://{absent}"), &server.url()]) });
    for _ in 0..20 {
        assert_eq!(call(&upstream, post("content")).await.unwrap(), "hello");
    }
    let snapshot = upstream.snapshot();
    assert_eq!((snapshot.retries, snapshot.ejections, snapshot.ejected, snapshot.available), (2, 1, 1, 1));
    ends(upstream).await;
}

#[tokio::test]
async fn a_target_that_was_left_out_gets_requests_again() {
    let server = Server::new(says("hello")).await;
    let absent = nobody();
    let ejection = Ejection { failures: 1, time: Duration::from_millis(200), return_over: Duration::from_millis(200) };
    let upstream = upstream(UpstreamSettings { ejection, ..settings(&[&format!("http://{absent}"), &server.url()]) });
    until_async(|| async { call(&upstream, get()).await.unwrap() == "hello" && upstream.snapshot().ejections > 0 })
        .await;
    let returned = Server::at(TcpListener::bind(absent).await.unwrap(), None, says("back"));
    until_async(|| async { call(&upstream, get()).await.unwrap() == "back" }).await;
    until("it has its whole share", || upstream.snapshot().available == 2).await;
    assert!(returned.asked() > 0);
    ends(upstream).await;
}

async fn until_async<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    for _ in 0..2000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in 20 s");
}

#[tokio::test]
async fn when_all_are_left_out_they_are_tried_all_the_same() {
    let (broken, _) = breaks();
    let ejection = Ejection { failures: 1, ..Ejection::default() };
    let upstream = upstream(UpstreamSettings { ejection, retries: 0, ..settings(&[&broken]) });
    for _ in 0..3 {
        assert_eq!(call(&upstream, get()).await.unwrap_err().word(), "upstream_broke");
    }
    assert_eq!((upstream.snapshot().ejected, upstream.snapshot().ejections), (1, 1));
    ends(upstream).await;
}

#[tokio::test]
async fn a_refused_connection_is_told() {
    let absent = format!("http://{}", nobody());
    let upstream = upstream(settings(&[&absent]));
    let error = call(&upstream, get()).await.unwrap_err();
    assert_eq!(error.word(), "upstream_connect");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("refused"), "{error:?}");
    ends(upstream).await;
}

#[tokio::test]
async fn an_answer_that_says_unavailable_is_passed_on_and_counts_as_a_failure() {
    let server = Server::new(|_| async { Ok(Response::builder().status(503).body("later".into()).unwrap()) }).await;
    let ejection = Ejection { failures: 3, ..Ejection::default() };
    let upstream = upstream(UpstreamSettings { ejection, ..settings(&[&server.url()]) });
    for number in 1..4 {
        let response = upstream.send(get(), 7, limits()).await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "later");
        assert_eq!(upstream.snapshot().ejected, usize::from(number == 3));
    }
    assert_eq!((server.asked(), server.accepted()), (3, 1));
    ends(upstream).await;
}

#[tokio::test]
async fn failures_that_are_not_in_a_row_put_nobody_out() {
    let turn = AtomicUsize::new(0);
    let server = Server::new(move |_| {
        let status = if turn.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) { 503 } else { 200 };
        async move { Ok(Response::builder().status(status).body(Body::from("x")).unwrap()) }
    })
    .await;
    let ejection = Ejection { failures: 2, ..Ejection::default() };
    let upstream = upstream(UpstreamSettings { ejection, ..settings(&[&server.url()]) });
    for _ in 0..10 {
        call(&upstream, get()).await.unwrap();
    }
    assert_eq!((upstream.snapshot().ejections, server.asked()), (0, 10));
    ends(upstream).await;
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_told_and_not_asked_for_again() {
    let (address, _thread) = thread(|_, stream| {
        read_request(stream);
        write(stream, "220 mail.example.com ESMTP\r\n\r\n");
    });
    let upstream = upstream(settings(&[&format!("http://{address}")]));
    assert_eq!(call(&upstream, get()).await.unwrap_err().word(), "upstream_protocol");
    assert_eq!(upstream.snapshot().retries, 0);
    ends(upstream).await;
}

#[tokio::test]
async fn an_answer_that_breaks_counts_as_a_failure() {
    let (address, _thread) = thread(|_, stream| {
        read_request(stream);
        write(stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    });
    let ejection = Ejection { failures: 2, ..Ejection::default() };
    let upstream = upstream(UpstreamSettings { ejection, ..settings(&[&format!("http://{address}")]) });
    for number in 1..3 {
        let response = upstream.send(get(), 7, limits()).await.unwrap();
        assert!(response.into_body().collect().await.is_err());
        assert_eq!(upstream.snapshot().ejected, usize::from(number == 2));
        assert_eq!(upstream.snapshot().in_flight, 0);
    }
    ends(upstream).await;
}

#[tokio::test]
async fn what_the_client_breaks_is_not_the_targets_fault() {
    let server = Server::new(|request: Request<Incoming>| async move {
        drop(request.into_body().collect().await);
        Ok(Response::new("hello".into()))
    })
    .await;
    let ejection = Ejection { failures: 1, ..Ejection::default() };
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let upstream =
            upstream(UpstreamSettings { ejection: ejection.clone(), protocol, ..settings(&[&server.url()]) });
        let (pipe, content) = piped();
        pipe.send(data("half")).unwrap();
        let pulse = Arc::new(Pulse::new());
        let limits = SendLimits { progress: Some(Arc::clone(&pulse)), ..limits() };
        let (sent, ()) = tokio::join!(upstream.send(post("").map(|_| content), 7, limits), async {
            pulse.fail();
            pipe.send(Err(Break)).unwrap();
        });
        let error = sent.unwrap_err();
        assert!(error.is_request_body(), "{protocol:?}: {error:?}");
        assert_eq!((upstream.snapshot().ejected, upstream.snapshot().in_flight), (0, 0));
        ends(upstream).await;
    }
}
