//! `try` and `health` against a small server that answers as the contract says a gateway does, or does not.

use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Desk, Exit};
use crate::groups::demo;
use crate::keys::KeyPrefix;

const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJqdGkiOiJBIn0.c2lnbmF0dXJl";

/// What a server gets wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    LetsForgedTokensThrough,
    KnowsNoKey,
}

/// A server on a port of its own, and the desk whose configuration describes it.
async fn gateway(flaw: Flaw) -> (Desk, String) {
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("a certificate");
    let chain: Vec<CertificateDer<'static>> = vec![made.cert.der().clone()];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");

    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut first = [0u8; 1];
                // 22 begins a TLS record (RFC 8446 §5.1).
                if stream.peek(&mut first).await.is_ok() && first[0] != 22 {
                    let _ = stream.read(&mut [0u8; 1024]).await;
                    let _ = stream
                        .write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                        .await;
                    return;
                }
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service =
                    hyper::service::service_fn(
                        move |request| async move { Ok::<_, Infallible>(answer(&request, flaw)) },
                    );
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });

    let mut desk = Desk::new();
    let tls = desk.dir.path().join("data/tls");
    std::fs::create_dir_all(&tls).expect("a folder");
    std::fs::write(tls.join("ca.pem"), made.cert.pem()).expect("a file");
    desk.env.push(("KEYBEARER__SERVER__LISTEN".into(), address.to_string()));
    (desk, format!("https://127.0.0.1:{}", address.port()))
}

fn answer(request: &Request<Incoming>, flaw: Flaw) -> Response<Full<Bytes>> {
    let key = demo::key(&KeyPrefix::default());
    let basic = format!("Basic {}", STANDARD.encode(format!("{}:", key.secret().expose())));
    let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let (status, body) = match (request.uri().path(), authorization) {
        ("/health/ready", None) => (200, String::new()),
        ("/token", Some(value)) if value == basic && flaw != Flaw::KnowsNoKey => {
            (200, format!(r#"{{"token":"{TOKEN}","access_token":"{TOKEN}","expires_in":3600}}"#))
        }
        // An upstream that repeats what it was sent must not make `try` print it.
        ("/demo/time", Some(value)) if value == format!("Bearer {TOKEN}") => (200, format!("you sent {value}")),
        ("/demo/time", Some(value)) if flaw == Flaw::LetsForgedTokensThrough => (200, format!("you sent {value}")),
        _ => (401, String::new()),
    };
    let mut response = Response::builder().status(status);
    if status == 401 {
        response = response.header("www-authenticate", "Bearer realm=\"keybearer\"");
    }
    response.body(Full::from(body)).expect("a response")
}

fn assert_no_credentials(text: &str) {
    let key = demo::key(&KeyPrefix::default());
    assert!(!text.contains(&key.secret().expose()[16..]), "{text}");
    assert!(!text.contains("eyJqdGki") && !text.contains("Basic a"), "{text}");
}

#[tokio::test]
async fn a_gateway_that_keeps_the_contract_passes() {
    let (desk, url) = gateway(Flaw::None).await;
    let ran = desk.run(&format!("try {url}")).await;
    assert_no_credentials(&ran.out);
    assert!(ran.out.contains("1. The key becomes a token\n   > GET https://127.0.0.1:"), "{}", ran.out);
    assert!(ran.out.contains("> authorization: Basic (kb_demodemodemo_…, no password)"), "{}", ran.out);
    assert!(ran.out.contains("\"token\": \"eyJ…(redacted)\""), "{}", ran.out);
    assert!(
        ran.out.contains("   < www-authenticate: Bearer realm=\"keybearer\"\n   ✓ 401, as expected\n"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("5. Plain HTTP to the same port (without credentials)\n   > GET http://"), "{}", ran.out);
    assert!(ran.out.ends_with("5 of 5 as expected\n"), "{}", ran.out);
    assert_eq!(ran.exit, Exit::Done);

    let own = desk.run("try --json").await;
    assert_no_credentials(&own.out);
    let report = own.json();
    assert_eq!((report["ok"].as_bool(), report["steps"].as_array().map(Vec::len)), (Some(true), Some(5)));
    assert_eq!(report["steps"][3]["expected_status"], 401);
}

#[tokio::test]
async fn a_gateway_that_lets_forged_tokens_through_fails() {
    let (desk, url) = gateway(Flaw::LetsForgedTokensThrough).await;
    let ran = desk.run(&format!("try {url}")).await;
    assert_no_credentials(&ran.out);
    assert!(ran.out.contains("✗ 401 was expected\n"), "{}", ran.out);
    assert!(ran.out.ends_with("4 of 5 as expected\n"), "{}", ran.out);
    assert_eq!(ran.exit, Exit::Failed);
}

#[tokio::test]
async fn a_key_that_is_refused_leaves_the_token_untried() {
    let (desk, url) = gateway(Flaw::KnowsNoKey).await;
    let file = desk.dir.path().join("acme.key");
    std::fs::write(&file, "kb_0123456789ab_0123456789abcdefghijABCDEFGHIJKLxxxxxx\n").expect("a file");
    let ran = desk.run_args(&["try", &url, "--key-file", file.to_str().expect("UTF-8")]).await;
    assert!(ran.out.contains("Basic (kb_0123456789ab_…, no password)"), "{}", ran.out);
    assert!(ran.out.contains("✗ not tried: there is no token"), "{}", ran.out);
    assert!(ran.out.ends_with("2 of 5 as expected\n"), "{}", ran.out);
    assert_eq!(ran.exit, Exit::Failed);
}

#[tokio::test]
async fn an_unknown_certificate_is_refused_with_a_way_out() {
    let (desk, url) = gateway(Flaw::None).await;
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let file = desk.dir.path().join("other.pem");
    std::fs::write(&file, other.cert.pem()).expect("a file");
    let ran = desk.run_args(&["try", &url, "--cacert", file.to_str().expect("UTF-8")]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Failed, ""), "no credential goes to whom is not trusted");
    assert!(
        ran.err.contains("certificate is not trusted") && ran.err.contains("hint: name the authority"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn health_trusts_the_own_authority_or_the_very_certificate() {
    let (mut desk, _) = gateway(Flaw::None).await;
    let ready = desk.run("health").await;
    assert_eq!((ready.exit, ready.out.as_str()), (Exit::Done, "ready\n"), "{ready:?}");
    assert_eq!(desk.run("health --json").await.json(), serde_json::json!({ "ready": true, "status": 200 }));

    // The operator's own certificate: believed for what it is, not for a name in it.
    let certificate = desk.dir.path().join("data/tls/ca.pem").to_str().expect("UTF-8").to_owned();
    desk.env.push(("KEYBEARER__TLS__CERTIFICATE".into(), certificate.clone()));
    desk.env.push(("KEYBEARER__TLS__PRIVATE_KEY".into(), certificate));
    desk.env.push(("KEYBEARER__TLS__NAMES".into(), "elsewhere.example.com".into()));
    let ready = desk.run("health").await;
    assert_eq!(ready.exit, Exit::Done, "{ready:?}");
}
