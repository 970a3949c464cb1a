//! Notices of licences' ends, from a running gateway to a receiver.

use std::time::Duration;

use hmac_of::verified;
use keybearer::licences::Licence;
use keybearer::persist::{Cut, Update};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::gateway::{SAMPLE, TestGateway};

const DAY: Duration = Duration::from_secs(86_400);

/// A signature of Standard Webhooks, checked with what the tests have for HMAC and not with the gateway's own code.
mod hmac_of {
    use aws_lc_rs::hmac::{HMAC_SHA256, Key, verify};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    pub fn verified(secret: &[u8], id: &str, timestamp: &str, body: &str, signature: &str) -> bool {
        let Some(mac) = signature.strip_prefix("v1,").and_then(|mac| STANDARD.decode(mac).ok()) else { return false };
        verify(&Key::new(HMAC_SHA256, secret), format!("{id}.{timestamp}.{body}").as_bytes(), &mac).is_ok()
    }
}

/// The fields and the content of the next message, which is answered with `status`.
async fn next(listener: &TcpListener, status: &str) -> (String, String) {
    let (mut stream, _) = listener.accept().await.expect("a message");
    let mut seen = Vec::new();
    loop {
        assert!(stream.read_buf(&mut seen).await.expect("a message") > 0, "{}", String::from_utf8_lossy(&seen));
        let text = String::from_utf8_lossy(&seen).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if field(head, "content-length").parse() == Ok(body.len()) {
            stream
                .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())
                .await
                .expect("taken");
            return (head.to_owned(), body.to_owned());
        }
    }
}

fn field<'h>(head: &'h str, name: &str) -> &'h str {
    let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name}: {head}"))
}

#[tokio::test]
async fn ends_are_announced_signed_and_once_and_again_after_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").expect("a file");
    let target = format!("http://{}/hook", listener.local_addr().expect("an address")).parse().expect("a target");
    let gateway = TestGateway::build()
        .with(|config| {
            config.webhook =
                Some(keybearer::webhook::Settings { target, secret_file: Some(secret.clone()), ca_file: None });
        })
        .start()
        .await;
    gateway.group(SAMPLE, None).await;
    gateway.account("acme", None).await;
    let end = gateway.now() + 20 * DAY;
    let licence = gateway.licence("acme", &[SAMPLE], Some(end)).await;
    let key = gateway.key("acme").await;

    gateway.advance(13 * DAY);
    let (head, body) = next(&listener, "503 Service Unavailable").await;
    let first = checked(&head, &body);
    assert_eq!(field(&head, "webhook-timestamp").parse(), Ok(gateway.now().secs()));
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        (&body["type"], &body["data"]["licence"], &body["data"]["account"], &body["data"]["ends_at"]),
        (&"licence.expiring".into(), &licence.as_str().into(), &"acme".into(), &end.to_string().into())
    );
    // A receiver that is down holds nobody up.
    assert_eq!(gateway.token_call(&key).await.status, 200);

    // The next attempt is the same message.
    let again = async {
        loop {
            gateway.advance(Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (head, body) = tokio::select! {
        message = next(&listener, "204 No Content") => message,
        () = again => unreachable!("it goes on for ever"),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("no second attempt"),
    };
    assert_eq!(checked(&head, &body), first);

    // The end is moved: it has notices of its own.
    let change = |licence| Update::Write(Licence { ends_at: Some(end + DAY), ..licence }, Cut::No);
    gateway.store.update_licence(&licence, &change).await.expect("stored");
    gateway.advance(8 * DAY);
    let (head, body) =
        tokio::time::timeout(Duration::from_secs(60), next(&listener, "200 OK")).await.expect("a notice");
    assert_ne!(checked(&head, &body), first);
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["type"], "licence.ended");
}

fn checked(head: &str, body: &str) -> String {
    let [id, timestamp, signature] =
        ["id", "timestamp", "signature"].map(|name| field(head, &format!("webhook-{name}")));
    assert!(verified(b"0123456789abcdef0123456789abcdef", id, timestamp, body, signature), "{head}");
    id.to_owned()
}
