//! How long a target may take.

use super::*;

fn within(response_timeout: Duration, progress: Option<&Arc<Pulse>>) -> SendLimits {
    SendLimits { response_timeout, progress: progress.cloned() }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let server = Server::new(|_| std::future::pending()).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let ejection = Ejection { failures: 1, ..Ejection::default() };
        let upstream = upstream(UpstreamSettings { protocol, ejection, ..settings(&[&server.url()]) });
        let error = upstream.send(get(), 7, within(Duration::from_millis(50), None)).await.unwrap_err();
        assert_eq!(error.word(), "upstream_timeout");
        assert_eq!(
            (upstream.snapshot().in_flight, upstream.snapshot().ejected, upstream.snapshot().retries),
            (0, 1, 0)
        );
        ends(upstream).await;
    }
}

/// Each piece of the content is given when the time of the one before has nearly run out.
#[tokio::test]
async fn progress_of_the_content_postpones_the_end_of_time() {
    let server = Server::new(|request: Request<Incoming>| async move {
        let content = request.into_body().collect().await.unwrap().to_bytes();
        Ok(Response::new(Body::from(content)))
    })
    .await;
    let upstream = upstream(settings(&[&server.url()]));
    let (pipe, content) = piped();
    let pulse = Arc::new(Pulse::new());
    let limit = Duration::from_secs(2);
    let began = Instant::now();
    let (sent, ()) = tokio::join!(upstream.send(post("").map(|_| content), 7, within(limit, Some(&pulse))), async {
        while began.elapsed() < limit + Duration::from_millis(500) {
            pipe.send(data("x")).unwrap();
            pulse.bump();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        pulse.end();
        drop(pipe);
    });
    assert!(began.elapsed() > limit);
    assert_eq!(sent.unwrap().status(), 200);
    ends(upstream).await;
}

#[tokio::test]
async fn a_client_that_stops_sending_does_not_put_a_target_out() {
    let server = Server::new(|request: Request<Incoming>| async move {
        drop(request.into_body().collect().await);
        Ok(Response::new("hello".into()))
    })
    .await;
    let ejection = Ejection { failures: 1, ..Ejection::default() };
    let upstream = upstream(UpstreamSettings { ejection, ..settings(&[&server.url()]) });
    let (_pipe, content) = piped();
    let pulse = Arc::new(Pulse::new());
    let limits = within(Duration::from_millis(50), Some(&pulse));
    let error = upstream.send(post("").map(|_| content), 7, limits).await.unwrap_err();
    assert_eq!(error.word(), "upstream_timeout");
    assert_eq!(upstream.snapshot().ejected, 0);
    ends(upstream).await;
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_is_not_waited_for() {
    // It accepts at once, being in the queue, and then never takes part in TLS.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("https://{}", listener.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let ca_file = Some(super::tls::authority(folder.path()).file);
    let tls = UpstreamTls { ca_file, ..UpstreamTls::default() };
    let upstream =
        upstream(UpstreamSettings { connect_timeout: Duration::from_millis(50), tls, ..settings(&[&target]) });
    assert_eq!(call(&upstream, get()).await.unwrap_err().word(), "upstream_connect_timeout");
    ends(upstream).await;
}
