//! Real sockets: what a receiver sees, and what counts as taken.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const BODY: &[u8] = br#"{"test": 2432232314}"#;
const MESSAGE: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const AT: Timestamp = Timestamp::from_secs(1_614_265_330);

/// Reads one request to the end of its content and answers it; returns the request as it came.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &str) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(BODY) {
        assert!(stream.read_buf(&mut seen).await.expect("a request") > 0, "{}", String::from_utf8_lossy(&seen));
    }
    stream.write_all(answer.as_bytes()).await.expect("an answer is taken");
    stream.flush().await.expect("an answer is taken");
    String::from_utf8(seen).expect("text")
}

fn settings(url: &str, folder: &Path) -> Settings {
    let secret = folder.join("secret");
    std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a file");
    Settings { target: url.parse().expect("a target"), secret_file: Some(secret), ca_file: None }
}

async fn deliver(settings: &Settings) -> Result<(), Undelivered> {
    Webhook::new(settings).expect("good files").deliver(MESSAGE, AT, BODY.to_vec()).await
}

#[tokio::test]
async fn a_receiver_sees_a_signed_post_and_any_2xx_is_enough() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let settings = settings(&format!("http://{address}/hook?from=kb"), folder.path());
    for (status, taken) in
        [("200 OK", true), ("204 No Content", true), ("307 Temporary Redirect", false), ("500 x", false)]
    {
        let said = format!("HTTP/1.1 {status}\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n");
        let receive = async {
            let (stream, _) = listener.accept().await.expect("a connection");
            answer(stream, &said).await
        };
        let (delivered, seen) = tokio::join!(deliver(&settings), receive);
        assert_eq!(delivered.is_ok(), taken, "{status}: {delivered:?}");
        assert!(seen.starts_with("POST /hook?from=kb HTTP/1.1\r\n"), "{seen}");
        for field in [
            &format!("host: {address}") as &str,
            "content-type: application/json",
            "content-length: 20",
            "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp: 1614265330",
            "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ] {
            assert!(seen.contains(&format!("\r\n{field}\r\n")), "{field}: {seen}");
        }
    }
    let unsigned = Settings { secret_file: None, ..settings };
    let receive = async { answer(listener.accept().await.expect("a connection").0, "HTTP/1.1 200 OK\r\n\r\n").await };
    let (delivered, seen) = tokio::join!(deliver(&unsigned), receive);
    assert!(delivered.is_ok() && !seen.contains("webhook-signature"), "{seen}");
}

#[tokio::test]
async fn a_receiver_that_hangs_up_or_is_not_there_has_taken_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let settings = settings(&format!("http://{}", listener.local_addr().expect("an address")), folder.path());
    let receive = async { answer(listener.accept().await.expect("a connection").0, "").await };
    let (delivered, _) = tokio::join!(deliver(&settings), receive);
    delivered.expect_err("no answer");
    drop(listener);
    deliver(&settings).await.expect_err("nobody there");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_says_nothing_is_not_waited_for_without_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let settings = settings(&format!("http://{}", listener.local_addr().expect("an address")), folder.path());
    let silent = async {
        let held = listener.accept().await;
        std::future::pending::<()>().await;
        drop(held);
    };
    tokio::select! {
        delivered = deliver(&settings) => assert!(delivered.expect_err("no answer").0.contains("within 15 s")),
        () = silent => unreachable!("it is silent for ever"),
    }
}

#[tokio::test]
async fn over_tls_a_receiver_must_be_who_the_authority_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, issuer.pem()).expect("a file");
    let acceptor = |name: &str| {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()));
        TlsAcceptor::from(Arc::new(config.expect("a certificate")))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://localhost:{}/", listener.local_addr().expect("an address").port());
    let trusting = Settings { ca_file: Some(ca_file.clone()), ..settings(&url, folder.path()) };
    for (name, trusted) in [("localhost", true), ("elsewhere.example", false)] {
        let acceptor = acceptor(name);
        let receive = async {
            let (stream, _) = listener.accept().await.expect("a connection");
            let stream = acceptor.accept(stream).await.ok()?;
            Some(answer(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await)
        };
        let (delivered, seen) = tokio::join!(deliver(&trusting), receive);
        assert_eq!((delivered.is_ok(), seen.is_some()), (trusted, trusted), "{name}: {delivered:?}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_setting() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = settings("https://example.com", folder.path());
    let missing = Some(folder.path().join("missing"));
    let told = |settings: Settings| Webhook::new(&settings).expect_err("a fault").to_string();
    let text = told(Settings { secret_file: missing.clone(), ..good.clone() });
    assert!(text.starts_with("notices.secret_file: ") && text.contains("missing cannot be read"), "{text}");
    let text = told(Settings { ca_file: good.secret_file.clone(), ..good.clone() });
    assert!(
        text.starts_with("notices.ca_file: ")
            && text.ends_with("has no certificate; it needs a block that begins with -----BEGIN CERTIFICATE-----"),
        "{text}"
    );
    let short = folder.path().join("short");
    std::fs::write(&short, "whsec_c2VjcmV0").expect("a file");
    let text = told(Settings { secret_file: Some(short), ..good });
    assert!(text.contains("24 to 64 bytes") && !text.contains("c2VjcmV0"), "{text}");
}

/// A host with two addresses, of which one is a hole: as with IPv6 that leads nowhere.
#[tokio::test]
async fn an_address_that_does_not_answer_leaves_the_next_one_its_turn() {
    let each = Duration::from_millis(100);
    let hole = tokio::net::TcpSocket::new_v4().expect("a socket");
    hole.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let hole = hole.listen(0).expect("a listener");
    let nowhere = hole.local_addr().expect("an address");
    // Nobody takes connections off its queue: once that is full nobody is answered.
    let mut queued = Vec::new();
    while let Ok(stream) = first_to_answer([nowhere].into_iter(), each).await {
        queued.push(stream);
        assert!(queued.len() < 64, "a queue without end");
    }
    let refused = first_to_answer([nowhere].into_iter(), each).await.expect_err("no answer");
    assert_eq!(refused, because(format!("{nowhere} does not answer")));

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stream = first_to_answer([nowhere, address].into_iter(), each).await.expect("the next one");
    assert_eq!(stream.peer_addr().expect("an address"), address);
}
