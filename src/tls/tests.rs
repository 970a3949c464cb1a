use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::clock::{Clock, SystemClock};

const DAY: Duration = Duration::from_secs(86_400);
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn open_local(folder: &TempDir, now: Timestamp) -> Result<Watched, Faults> {
    Watched::open(&Settings::default(), folder.path(), now)
}

fn local(folder: &TempDir, name: &str) -> PathBuf {
    folder.path().join("tls").join(name)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

/// Writes a certificate for `a.example`, valid so many days from [`NOW`], and its key.
fn write_pair(folder: &Path, from: i64, to: i64) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let at = |days: i64| {
        time::OffsetDateTime::from_unix_timestamp(i64::try_from(NOW.secs()).unwrap() + days * 86_400).unwrap()
    };
    (params.not_before, params.not_after) = (at(from), at(to));
    fs::write(folder.join("tls.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    fs::set_permissions(folder.join("tls.key"), fs::Permissions::from_mode(0o600)).unwrap();
}

fn operator(folder: &Path) -> Settings {
    Settings {
        certificate: Some(folder.join("tls.pem")),
        private_key: Some(folder.join("tls.key")),
        ..Settings::default()
    }
}

fn open(folder: &TempDir) -> Result<Watched, Faults> {
    Watched::open(&operator(folder.path()), folder.path(), NOW)
}

/// What is wrong with the files of `folder`, which is left out of the messages.
fn faults(folder: &TempDir) -> String {
    let faults = open(folder).expect_err("faults");
    faults.to_string().replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn the_first_run_makes_an_authority_and_later_runs_reuse_it() {
    let folder = folder();
    let first = open_local(&folder, NOW).expect("a certificate");
    assert_eq!(first.local_authority(), Some(local(&folder, "ca.pem")));
    let summary = &first.material().summary;
    assert_eq!((summary.names.as_slice(), &summary.warnings), (Settings::default().names.as_slice(), &vec![]));
    assert_eq!(summary.not_after, NOW - Duration::from_secs(3600) + 397 * DAY);
    assert_eq!(mode(&folder.path().join("tls")), 0o700);
    for (name, expected) in [("ca.pem", 0o644), ("ca.key", 0o600), ("localhost.pem", 0o644), ("localhost.key", 0o600)] {
        assert_eq!(mode(&local(&folder, name)), expected, "{name}");
    }
    let data = folder.path().join("data");
    Watched::open(&Settings::default(), &data, NOW).expect("a data folder");
    assert_eq!(mode(&data), 0o700);
    let second = open_local(&folder, NOW + DAY).expect("the same certificate");
    assert_eq!(&second.material().summary, summary);
}

#[test]
fn two_processes_that_start_at_once_share_one_authority() {
    let folder = folder();
    let fingerprints: Vec<String> = std::thread::scope(|scope| {
        let start = || open_local(&folder, NOW).expect("a certificate").material().summary.fingerprint.clone();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(fingerprints.iter().all(|other| *other == fingerprints[0]), "{fingerprints:?}");
}

#[test]
fn the_leaf_is_renewed_thirty_days_before_its_end_by_the_same_authority() {
    let folder = folder();
    let mut watched = open_local(&folder, NOW).unwrap();
    let (before, authority) = (watched.material().summary.clone(), fs::read(local(&folder, "ca.pem")).unwrap());
    assert!(matches!(watched.reload(NOW + 366 * DAY), Reload::Unchanged));
    let Reload::Changed(_, after) = watched.reload(NOW + 367 * DAY) else { panic!("it is due") };
    assert_ne!(after.fingerprint, before.fingerprint);
    assert_eq!(after.not_after, before.not_after + 367 * DAY);
    assert_eq!(fs::read(local(&folder, "ca.pem")).unwrap(), authority);
    assert!(matches!(watched.reload(NOW + 367 * DAY), Reload::Unchanged));
}

#[test]
fn the_last_leaf_of_an_authority_ends_with_it_and_is_not_made_over_and_over() {
    let folder = folder();
    open_local(&folder, NOW).unwrap();
    let late = NOW + 3640 * DAY;
    let mut watched = open_local(&folder, late).expect("the authority has ten days left");
    assert_eq!(watched.material().summary.not_after, NOW - Duration::from_secs(3600) + 3650 * DAY);
    assert!(matches!(watched.reload(late + DAY), Reload::Unchanged));
    let ended = open_local(&folder, NOW + 3650 * DAY).expect_err("its end").to_string();
    assert!(ended.contains("ca.pem expired at 2037-01-1") && ended.contains("move the folder away"), "{ended}");
}

#[test]
fn the_leaf_follows_its_names_and_its_authority() {
    let (folder, other) = (folder(), folder());
    let first = open_local(&folder, NOW).unwrap().material().summary.fingerprint.clone();
    let names =
        |names: &[&str]| Settings { names: names.iter().map(|name| name.to_string()).collect(), ..Settings::default() };
    let respelt = names(&["0:0:0:0:0:0:0:1", "LOCALHOST", "127.0.0.1"]);
    let second = Watched::open(&respelt, folder.path(), NOW).unwrap().material().summary.fingerprint.clone();
    assert_eq!(first, second, "the same names in another order and spelling");
    let third = Watched::open(&names(&["*.example.com"]), folder.path(), NOW).unwrap().material().summary.clone();
    assert_eq!(third.names, ["*.example.com"]);

    open_local(&other, NOW).unwrap();
    let mut watched = Watched::open(&names(&["*.example.com"]), folder.path(), NOW).unwrap();
    for name in ["ca.pem", "ca.key"] {
        fs::copy(local(&other, name), local(&folder, name)).unwrap();
    }
    let Reload::Changed(_, fourth) = watched.reload(NOW) else { panic!("another authority") };
    assert_ne!(fourth.fingerprint, third.fingerprint);
}

#[test]
fn an_interrupted_making_is_completed() {
    let (folder, other) = (folder(), folder());
    open_local(&folder, NOW).unwrap();
    open_local(&other, NOW).unwrap();
    fs::copy(local(&other, "localhost.key"), local(&folder, "localhost.key")).unwrap();
    open_local(&folder, NOW).expect("a new leaf in place of one with another's key");
    fs::remove_file(local(&folder, "localhost.pem")).unwrap();
    open_local(&folder, NOW).expect("a new leaf in place of a lone key");
    for name in ["ca.pem", "localhost.pem"] {
        fs::remove_file(local(&folder, name)).unwrap();
    }
    fs::write(local(&folder, ".ca.pem.new"), "half of it").unwrap();
    open_local(&folder, NOW).expect("a new authority in place of a lone key that signed nothing");
}

#[test]
fn a_damaged_file_is_named_and_left_as_it_is() {
    for (name, remedy) in [
        ("ca.pem", "restore it from a backup"),
        ("ca.key", "restore it from a backup"),
        ("localhost.pem", "remove it, and it is made anew"),
        ("localhost.key", "remove it, and it is made anew"),
    ] {
        let folder = folder();
        let mut watched = open_local(&folder, NOW).unwrap();
        let before = watched.material().summary.clone();
        let whole = fs::read_to_string(local(&folder, name)).unwrap();
        for damaged in ["", "garbage", &whole[..whole.len() / 2], &whole.replace("MI", "MJ")] {
            fs::write(local(&folder, name), damaged).unwrap();
            let message = open_local(&folder, NOW).expect_err(name).to_string();
            assert!(message.contains(name) && message.contains(remedy), "{message}");
            assert_eq!(fs::read_to_string(local(&folder, name)).unwrap(), damaged);
            assert!(!matches!(watched.reload(NOW), Reload::Changed(..)));
        }
        assert_eq!(watched.material().summary, before, "what was in force stays in force");
        fs::write(local(&folder, name), whole).unwrap();
        assert!(matches!(watched.reload(NOW), Reload::Unchanged), "{name} is whole again");
    }
}

#[test]
fn half_an_authority_is_not_replaced() {
    for (missing, beside) in [("ca.key", "ca.pem"), ("ca.pem", "ca.key")] {
        let folder = folder();
        open_local(&folder, NOW).unwrap();
        fs::remove_file(local(&folder, missing)).unwrap();
        let faults = open_local(&folder, NOW).expect_err(missing);
        let expected = Error::Incomplete { missing: local(&folder, missing), beside: local(&folder, beside) };
        assert_eq!(faults.list(), [expected]);
        assert!(local(&folder, beside).exists());
    }
}

#[test]
fn an_operators_certificate_is_served() {
    let folder = folder();
    write_pair(folder.path(), -1, 90);
    let watched = open(&folder).expect("a good pair");
    assert_eq!(watched.material().summary.names, ["a.example"]);
    assert_eq!(watched.material().summary.warnings, []);
    assert_eq!(watched.local_authority(), None);
    assert!(!folder.path().join("tls").exists(), "nothing is made beside it");
}

#[test]
fn every_fault_of_an_operators_files_is_told() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    assert_eq!(
        faults(&folder),
        "tls: tls.pem does not exist; correct the path, which is relative to the working directory, or put the file there\n\
         tls: tls.key does not exist; correct the path, which is relative to the working directory, or put the file there"
    );
    write_pair(folder.path(), -90, -1);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    fs::write(path("tls.key"), encrypted).unwrap();
    assert_eq!(
        faults(&folder),
        "tls: the private key in tls.key is encrypted; decrypt it: openssl pkey -in <file> -out <file>.plain, and keep that \
         at mode 0600\n\
         tls: the certificate in tls.pem expired at 2027-01-14T08:00:00Z; renew it"
    );
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n";
    fs::write(path("tls.key"), legacy).unwrap();
    assert!(faults(&folder).contains("is encrypted"));

    write_pair(folder.path(), 2, 90);
    assert!(faults(&folder).contains("tls.pem is not valid before 2027-01-17T08:00:00Z; wait for it, or set this"));

    write_pair(folder.path(), -1, 90);
    let (certificate, key) = (fs::read(path("tls.pem")).unwrap(), fs::read(path("tls.key")).unwrap());
    fs::write(path("tls.pem"), &key).unwrap();
    fs::write(path("tls.key"), &certificate).unwrap();
    assert_eq!(
        faults(&folder),
        "tls: tls.pem has no PEM certificate (but a private key); perhaps tls.certificate and tls.private_key are exchanged\n\
         tls: tls.key has no PEM private key (but a certificate); perhaps tls.certificate and tls.private_key are exchanged"
    );
    fs::write(path("tls.pem"), CertificateDer::from_pem_slice(&certificate).unwrap()).unwrap();
    fs::write(path("tls.key"), KeyPair::from_pem(str::from_utf8(&key).unwrap()).unwrap().serialized_der()).unwrap();
    assert!(faults(&folder).contains("tls.pem has no PEM certificate (it seems to be DER); convert it: openssl x509"));
    fs::write(path("tls.key"), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    fs::write(path("tls.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let both = faults(&folder);
    assert!(both.contains("tls.key has a key that cannot be used"), "{both}");
    assert!(both.contains("tls.pem has a certificate that cannot be used"), "{both}");
    fs::write(path("tls.key"), "-----BEGIN PRIVATE KEY-----\nSECRET").unwrap();
    let cut = faults(&folder);
    assert!(cut.contains("cut short") && !cut.contains("SECRET"), "{cut}");
    fs::remove_file(path("tls.pem")).unwrap();
    fs::create_dir(path("tls.pem")).unwrap();
    assert!(faults(&folder).contains("tls.pem cannot be read: "));
}

#[test]
fn a_key_of_another_certificate_is_told_from_a_chain_in_the_wrong_order() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    write_pair(folder.path(), -1, 90);
    let (own, key) = (fs::read(path("tls.pem")).unwrap(), fs::read(path("tls.key")).unwrap());
    write_pair(folder.path(), -1, 90);
    let other = fs::read(path("tls.pem")).unwrap();
    fs::write(path("tls.key"), &key).unwrap();
    let mismatch = faults(&folder);
    assert!(mismatch.contains("tls.key does not belong to the certificate in tls.pem; name the key"), "{mismatch}");
    fs::write(path("tls.pem"), [other, own].concat()).unwrap();
    let order = faults(&folder);
    assert!(order.contains("a later certificate of tls.pem; put the server's own certificate first"), "{order}");
}

#[test]
fn what_works_but_should_not_be_so_is_a_warning() {
    let folder = folder();
    write_pair(folder.path(), -80, 10);
    let key = folder.path().join("tls.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let at = NOW + 10 * DAY;
    let soon = Warning::ExpiresSoon { path: folder.path().join("tls.pem"), at };
    assert_eq!(open(&folder).unwrap().material().summary.warnings, std::slice::from_ref(&soon), "a group's");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let open_key = Warning::KeyOpenToOthers { path: key, mode: 0o644 };
    assert!(open_key.to_string().contains("(mode 0644); chmod 600 "), "{open_key}");
    assert_eq!(open(&folder).unwrap().material().summary.warnings, [open_key, soon]);
}

/// Kubernetes mounts a secret as links to `..data/<name>` and replaces the link `..data`.
#[test]
fn a_swapped_link_is_noticed_and_a_faulty_pair_leaves_the_old_one_in_force() {
    let folder = folder();
    let version = |name: &str| folder.path().join(name);
    for name in ["v1", "v2"] {
        fs::create_dir(version(name)).unwrap();
        write_pair(&version(name), -1, 90);
    }
    fs::create_dir(version("v3")).unwrap();
    let point_at = |name: &str| {
        symlink(name, folder.path().join("..data_tmp")).unwrap();
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    };
    point_at("v1");
    for name in ["tls.pem", "tls.key"] {
        symlink(Path::new("..data").join(name), folder.path().join(name)).unwrap();
    }
    let mut watched = open(&folder).expect("the first");
    let first = watched.material().summary.clone();
    assert!(matches!(watched.reload(NOW), Reload::Unchanged));

    point_at("v3");
    let Reload::Faulty(faults) = watched.reload(NOW) else { panic!("both files are missing") };
    assert_eq!(faults.list().len(), 2);
    assert!(matches!(watched.reload(NOW), Reload::Unchanged), "it is reported once");
    assert_eq!(watched.material().summary, first);

    write_pair(&version("v3"), 1, 90);
    assert!(matches!(watched.reload(NOW), Reload::Faulty(_)), "another fault is reported");
    assert!(matches!(watched.reload(NOW + 2 * DAY), Reload::Changed(..)), "its time has come");

    point_at("v2");
    let Reload::Changed(_, second) = watched.reload(NOW + 2 * DAY) else { panic!("a good pair") };
    assert_ne!(second.fingerprint, first.fingerprint);
    assert_eq!(watched.material().summary, second);
}

#[test]
fn half_an_operators_pair_is_refused() {
    let folder = folder();
    let settings = Settings { certificate: Some("tls.pem".into()), ..Settings::default() };
    assert!(matches!(Watched::open(&settings, folder.path(), NOW).unwrap_err().list(), [Error::Setup { .. }]));
}

/// Connects over memory and returns the handshake's kind and what ALPN settled on.
async fn connect(server: &Material, client: &Arc<ClientConfig>, name: &str) -> (HandshakeKind, Option<Vec<u8>>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let acceptor = TlsAcceptor::from(server.config.clone());
    let serve = tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await.expect("the server's handshake");
        stream.write_all(b"hello").await.expect("a write");
        stream.shutdown().await.expect("an end");
    });
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut stream = TlsConnector::from(client.clone()).connect(name, near).await.expect("the client's handshake");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("a read");
    assert_eq!(text, "hello");
    serve.await.expect("no panic");
    let connection = stream.get_ref().1;
    (connection.handshake_kind().expect("it is over"), connection.alpn_protocol().map(<[u8]>::to_vec))
}

#[tokio::test]
async fn clients_of_tls_12_and_13_trust_the_authority_and_resume() {
    let folder = folder();
    // The client judges by the system's clock.
    let now = SystemClock.now();
    let mut watched = open_local(&folder, now).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(local(&folder, "ca.pem")).unwrap()).unwrap();
    let versions: [&'static SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
    for version in versions {
        let mut client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        let client = Arc::new(client);
        let h2 = || Some(b"h2".to_vec());
        for name in ["localhost", "127.0.0.1", "::1"] {
            let (kind, protocol) = connect(watched.material(), &client, name).await;
            assert_ne!(kind, HandshakeKind::Resumed, "{version:?} {name}");
            assert_eq!(protocol, h2(), "{version:?} {name}: the server's order decides");
        }
        assert_eq!(
            connect(watched.material(), &client, "localhost").await,
            (HandshakeKind::Resumed, h2()),
            "{version:?}"
        );

        fs::remove_file(local(&folder, "localhost.pem")).unwrap();
        assert!(matches!(watched.reload(now), Reload::Changed(..)));
        let renewed = connect(watched.material(), &client, "localhost").await;
        assert_eq!(renewed, (HandshakeKind::Resumed, h2()), "{version:?}: a renewal keeps sessions");
    }
}
