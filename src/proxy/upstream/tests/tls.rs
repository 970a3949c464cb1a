//! TLS: whom a target is trusted by, what is agreed on, and who the gateway is.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::*;

pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub file: PathBuf,
}

/// An authority whose certificate is in `folder`.
pub(super) fn authority(folder: &Path) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let file = folder.join("ca.pem");
    std::fs::write(&file, issuer.pem()).unwrap();
    Authority { issuer, file }
}

impl Authority {
    fn certificate(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A server for `orders.internal` that agrees to `protocols`.
    async fn server(&self, protocols: &[&str], ask_client: bool) -> Server {
        let (certificate, key) = self.certificate("orders.internal", ExtendedKeyUsagePurpose::ServerAuth);
        let provider = Arc::new(default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let config = if ask_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            config.unwrap().with_client_cert_verifier(verifier)
        } else {
            config.unwrap().with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Server::at(listener, Some(TlsAcceptor::from(Arc::new(config))), |request: Request<Incoming>| async move {
            Ok(Response::new(Body::from(format!("{:?}", request.version()))))
        })
    }

    fn settings(&self, server: &Server) -> UpstreamSettings {
        let tls = UpstreamTls {
            ca_file: Some(self.file.clone()),
            server_name: Some("orders.internal".into()),
            ..UpstreamTls::default()
        };
        UpstreamSettings { tls, ..settings(&[&format!("https://{}", server.address)]) }
    }
}

#[tokio::test]
async fn the_protocol_is_agreed_on() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    for (protocol, offered, spoken) in [
        (Protocol::Auto, &["h2", "http/1.1"][..], Some("HTTP/2.0")),
        (Protocol::Auto, &["http/1.1"], Some("HTTP/1.1")),
        (Protocol::Auto, &[], Some("HTTP/1.1")),
        (Protocol::Http1, &["h2", "http/1.1"], Some("HTTP/1.1")),
        (Protocol::Http2, &["h2", "http/1.1"], Some("HTTP/2.0")),
        (Protocol::Http2, &["http/1.1"], None),
        (Protocol::Http2, &[], None),
    ] {
        let server = authority.server(offered, false).await;
        let upstream = upstream(UpstreamSettings { protocol, ..authority.settings(&server) });
        for _ in 0..3 {
            match (call(&upstream, get()).await, spoken) {
                (Ok(answer), Some(spoken)) => assert_eq!(answer, spoken),
                (Err(error), None) => assert_eq!(error.word(), "upstream_connect", "{error:?}"),
                (other, _) => panic!("{protocol:?} {offered:?}: {other:?}"),
            }
        }
        if spoken.is_some() {
            assert_eq!(server.accepted(), 1, "{protocol:?} {offered:?}");
        }
        ends(upstream).await;
    }
}

#[tokio::test]
async fn an_upgrade_gets_http1_where_http2_is_liked_better() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    let server = authority.server(&["h2", "http/1.1"], false).await;
    let upstream = upstream(authority.settings(&server));
    assert_eq!(call(&upstream, get()).await.unwrap(), "HTTP/2.0");
    let mut request = get();
    request.extensions_mut().insert(WantsUpgrade);
    assert_eq!(call(&upstream, request).await.unwrap(), "HTTP/1.1");
    assert_eq!(call(&upstream, get()).await.unwrap(), "HTTP/2.0");
    assert_eq!(server.accepted(), 2);
    ends(upstream).await;
}

#[tokio::test]
async fn another_name_or_another_authority_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ours = authority(folder.path());
    let server = ours.server(&["http/1.1"], false).await;
    let mut wrong_name = ours.settings(&server);
    wrong_name.tls.server_name = Some("billing.internal".into());
    let mut own_name = ours.settings(&server);
    own_name.tls.server_name = None;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut wrong_authority = ours.settings(&server);
    wrong_authority.tls.ca_file = Some(authority(elsewhere.path()).file);
    for settings in [wrong_name, own_name, wrong_authority] {
        let upstream = upstream(settings);
        let error = call(&upstream, get()).await.unwrap_err();
        assert_eq!(error.word(), "upstream_connect");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("certificate"), "{source}");
        ends(upstream).await;
    }
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_a_renewed_one_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    let server = authority.server(&["http/1.1"], true).await;
    let without = upstream(authority.settings(&server));
    call(&without, get()).await.unwrap_err();
    ends(without).await;

    let renew = || {
        let (certificate, key) = authority.certificate("gateway", ExtendedKeyUsagePurpose::ClientAuth);
        std::fs::write(folder.path().join("client.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.path().join("client.key"), key.serialize_pem()).unwrap();
    };
    renew();
    let mut settings = authority.settings(&server);
    settings.tls.certificate = Some(folder.path().join("client.pem"));
    settings.tls.private_key = Some(folder.path().join("client.key"));
    let upstreams = Upstreams::new(std::slice::from_ref(&settings)).unwrap();
    let first = upstreams.get(&settings.id).unwrap();
    assert_eq!(call(&first, get()).await.unwrap(), "HTTP/1.1");
    upstreams.reload(std::slice::from_ref(&settings)).unwrap();
    assert!(Arc::ptr_eq(&first, &upstreams.get(&settings.id).unwrap()));
    renew();
    upstreams.reload(std::slice::from_ref(&settings)).unwrap();
    let second = upstreams.get(&settings.id).unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(call(&second, get()).await.unwrap(), "HTTP/1.1");
    drop(upstreams);
    ends(first).await;
    ends(second).await;
}

#[test]
fn faulty_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    let (certificate, _) = authority.certificate("gateway", ExtendedKeyUsagePurpose::ClientAuth);
    let put = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).unwrap();
        Some(folder.path().join(name))
    };
    let (certificate, stranger, empty) = (
        put("client.pem", &certificate.pem()),
        put("other.key", &KeyPair::generate().unwrap().serialize_pem()),
        put("empty.pem", "nothing"),
    );
    let missing = Some(folder.path().join("missing.pem"));
    let tls = UpstreamTls::default;
    for (tls, file, says) in [
        (UpstreamTls { ca_file: missing.clone(), ..tls() }, "missing.pem", "does not exist"),
        (UpstreamTls { ca_file: empty.clone(), ..tls() }, "empty.pem", "BEGIN CERTIFICATE"),
        (
            UpstreamTls { certificate: empty.clone(), private_key: stranger.clone(), ..tls() },
            "empty.pem",
            "BEGIN CERTIFICATE",
        ),
        (UpstreamTls { certificate: certificate.clone(), private_key: empty, ..tls() }, "empty.pem", "private key"),
        (UpstreamTls { certificate: certificate.clone(), private_key: stranger, ..tls() }, "other.key", "does not fit"),
        (UpstreamTls { certificate, ..tls() }, "", "need each other"),
        (UpstreamTls { server_name: Some("a b".into()), ..tls() }, "", "tls.server_name"),
    ] {
        let tls = UpstreamTls { ca_file: tls.ca_file.clone().or(Some(authority.file.clone())), ..tls };
        let settings = UpstreamSettings { tls, ..settings(&["https://orders.internal"]) };
        let errors = Upstreams::new(&[settings]).unwrap_err();
        let text = errors[0].to_string();
        assert!(text.contains(file) && text.contains(says), "{text}");
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }
}
