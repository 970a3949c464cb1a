//! A real registry of container images that takes its tokens from the gateway, and a real client of both.
//!
//! docker-registry knows the gateway by nothing but its bundle of certificates. skopeo knows nothing of it at all: the
//! registry sends it there. All connections are TLS, and certificates are checked.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use keybearer::clock::{Clock, ManualClock, SystemClock};
use keybearer::config::{Config, Overrides};
use keybearer::keys::ApiKey;
use keybearer::repositories::KeyName;
use keybearer::signing::{self, Algorithm, KeyRing, Operations, Rotated, SigningState};
use keybearer::store::{MemoryStore, SharedStore};
use serde_json::json;

use crate::client::Answer;
use crate::gateway::TestGateway;
use crate::program::{Program, Start, find, free_port};

const SERVICE: &str = "images.example.com";

/// Writers push to `team/*`, readers pull from there, and everyone has what is below their own name.
const RULES: &str = r#"
[image_registry]
service = "images.example.com"
catalog_groups = ["writers"]

[[repositories]]
match = "team/*"
groups = ["writers"]
actions = ["pull", "push", "delete"]

[[repositories]]
match = "team/**"
groups = ["readers"]
actions = ["pull"]

[[repositories]]
match = "{account}/**"
groups = []
actions = ["pull", "push"]
"#;

/// How long before it signs a key is published here, and how long after the start it does.
const AHEAD: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(20);

/// What a login is.
#[derive(Clone)]
struct Login(String, String);

impl Login {
    /// With the key's id, since skopeo asks as nobody when the password is empty.
    fn of(key: &ApiKey) -> Self {
        Self(format!("kb_{}", key.id()), key.secret().expose().clone())
    }

    fn as_option(&self) -> String {
        format!("{}:{}", self.0, self.1)
    }
}

/// What a program said.
struct Said {
    ok: bool,
    out: String,
    all: String,
}

impl Said {
    #[track_caller]
    fn done(self) -> String {
        assert!(self.ok, "{}", self.all);
        self.out.trim().to_owned()
    }

    #[track_caller]
    fn denied(self, word: &str) {
        assert!(!self.ok, "{}", self.all);
        assert!(self.all.to_lowercase().contains(word), "{word}: {}", self.all);
    }
}

struct Scene {
    gateway: TestGateway,
    operations: Operations,
    registry: Option<Program>,
    program: PathBuf,
    skopeo: PathBuf,
    port: u16,
    folder: tempfile::TempDir,
    /// The image's digest.
    digest: String,
    writer: ApiKey,
    reader: ApiKey,
    stranger: ApiKey,
}

impl Scene {
    /// A gateway whose next signing key signs [`SOON`], and a registry that trusts it. `None` when a program is missing.
    async fn start(algorithm: Algorithm, key_name: KeyName) -> Option<Self> {
        let (program, skopeo) = (find("docker-registry")?, find("skopeo")?);
        let folder = tempfile::tempdir().expect("a folder");
        let config = configured(folder.path());
        let settings = signing::Settings { algorithm, publish_ahead: AHEAD, ..signing::Settings::default() };
        let store: SharedStore = Arc::new(MemoryStore::new());
        let longest = config.longest_token();
        let now = SystemClock.now();
        let earlier = Arc::new(ManualClock::new(now - (AHEAD - SOON)));
        KeyRing::load(&settings, longest, Arc::clone(&store) as _, Arc::clone(&earlier) as _).await.expect("a key");
        let before = Operations::new(Arc::clone(&store) as _, &settings, longest, earlier);
        assert!(matches!(before.rotate(false).await.expect("a rotation"), Rotated::Planned(..)));

        let mut registry = config.image_registry.expect("a registry");
        registry.key_name = key_name;
        let mine = settings.clone();
        let build = TestGateway::build().store(Arc::clone(&store)).with(|config| {
            config.signing = mine;
            config.image_registry = Some(registry);
        });
        let gateway = build.start().await;
        let operations = Operations::new(Arc::clone(&store) as _, &settings, longest, Arc::new(SystemClock));
        for group in ["writers", "readers", "guests"] {
            gateway.group(group, None).await;
        }
        for (account, groups) in [("ann", &["writers", "readers"][..]), ("bob", &["readers"]), ("eve", &["guests"])] {
            gateway.account(account, Some("open sesame")).await;
            gateway.licence(account, groups, None).await;
        }
        let (writer, reader, stranger) = (gateway.key("ann").await, gateway.key("bob").await, gateway.key("eve").await);
        let digest = image(&folder.path().join("image"));
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(folder.path().join("tls.pem"), made.cert.pem()).expect("a file");
        std::fs::write(folder.path().join("tls.key"), made.signing_key.serialize_pem()).expect("a file");
        let authority = std::fs::read_to_string(gateway.authority()).expect("the authority");
        std::fs::write(folder.path().join("trusted.pem"), authority + &made.cert.pem()).expect("a file");
        let (registry, port) = (None, 0);
        let mut scene =
            Self { gateway, operations, registry, program, skopeo, port, folder, digest, writer, reader, stranger };
        scene.start_registry().await;
        Some(scene)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the registry, or starts it again, with the bundle of this moment.
    async fn start_registry(&mut self) {
        self.registry = None;
        let bundle = self.operations.certificates().await.expect("certificates");
        let bundle: String = bundle.iter().map(signing::Certificate::pem).collect();
        std::fs::write(self.file("bundle.pem"), bundle).expect("a file");
        for _ in 0..5 {
            self.port = free_port();
            // YAML takes JSON.
            let config = json!({
                "version": "0.1",
                "log": { "level": "info" },
                "storage": { "filesystem": { "rootdirectory": self.file("storage") }, "delete": { "enabled": true } },
                "http": {
                    "addr": format!("127.0.0.1:{}", self.port),
                    "secret": "one registry needs no shared one",
                    "tls": { "certificate": self.file("tls.pem"), "key": self.file("tls.key") },
                },
                "auth": { "token": {
                    "realm": format!("https://localhost:{}/token", self.gateway.https().port()),
                    "service": SERVICE,
                    "issuer": self.gateway.config.tokens.issuer,
                    "rootcertbundle": self.file("bundle.pem"),
                } },
            });
            std::fs::write(self.file("registry.yml"), config.to_string()).expect("a file");
            let mut command = Command::new(&self.program);
            command.current_dir(self.folder.path()).args(["serve", "registry.yml"]);
            match Program::start(command, &self.file("log"), self.port).await {
                Ok(program) => {
                    self.registry = Some(program);
                    return;
                }
                Err(Start::PortTaken) => {}
                Err(Start::Ended(log)) => panic!("the registry ended:\n{log}"),
            }
        }
        panic!("five free ports were taken by others");
    }

    /// Runs skopeo.
    async fn skopeo(&self, arguments: &[&str], input: &str) -> Said {
        let mut command = Command::new(&self.skopeo);
        command
            .args(["--insecure-policy", "--command-timeout", "60s", "--tmpdir"])
            .arg(self.folder.path())
            .args(arguments)
            .current_dir(self.folder.path())
            .env("SSL_CERT_FILE", self.file("trusted.pem"))
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("NO_PROXY", "localhost")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = input.to_owned();
        let run = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("skopeo starts");
            // One that fails at once reads nothing.
            let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
            child.wait_with_output().expect("its output")
        });
        let output = run.await.expect("no panic");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let all = format!("{}{out}{}", output.status, String::from_utf8_lossy(&output.stderr));
        Said { ok: output.status.success(), out, all }
    }

    fn reference(&self, name: &str) -> String {
        format!("docker://localhost:{}/{name}", self.port)
    }

    async fn log_in(&self, login: &Login) -> Said {
        let address = format!("localhost:{}", self.port);
        let arguments = ["login", "--authfile", "auth.json", "--username", &login.0, "--password-stdin", &address];
        self.skopeo(&arguments, &login.1).await
    }

    /// As who has logged in.
    async fn push_logged_in(&self, name: &str) -> Said {
        let to = self.reference(name);
        self.skopeo(&["copy", "--preserve-digests", "--authfile", "auth.json", "oci:image:v1", &to], "").await
    }

    async fn push(&self, login: &Login, name: &str) -> Said {
        let (to, creds) = (self.reference(name), login.as_option());
        self.skopeo(&["copy", "--preserve-digests", "--dest-creds", &creds, "oci:image:v1", &to], "").await
    }

    /// Pulls all of an image into a new folder, and says its digest.
    async fn pull(&self, login: &Login, name: &str) -> Said {
        let folder = tempfile::tempdir_in(self.folder.path()).expect("a folder");
        let (from, creds) = (self.reference(name), login.as_option());
        let to = format!("oci:{}:v1", folder.path().display());
        let file = folder.path().join("digest");
        let file = file.to_str().expect("UTF-8");
        let arguments = ["copy", "--preserve-digests", "--digestfile", file, "--src-creds", &creds, &from, &to];
        let said = self.skopeo(&arguments, "").await;
        Said { out: std::fs::read_to_string(file).unwrap_or_default(), ..said }
    }

    async fn delete(&self, login: &Login, name: &str) -> Said {
        self.skopeo(&["delete", "--creds", &login.as_option(), &self.reference(name)], "").await
    }

    /// Waits until the key that was next signs.
    async fn rotate(&self) {
        let next = |keys: Vec<signing::SigningKey>| keys.into_iter().find(|key| key.state == SigningState::Next);
        let next = next(self.operations.list().await.expect("a list")).expect("a next key").kid;
        self.gateway.advance(SOON + Duration::from_secs(5));
        for _ in 0..600 {
            let answer: Answer = self.gateway.token_call(&self.writer).await;
            let header = answer.token().split('.').next().map(crate::forge::decode).expect("a header");
            if header["kid"] == next.as_str() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the next key does not sign");
    }
}

fn configured(folder: &Path) -> Config {
    let file = folder.join("gateway.toml");
    std::fs::write(&file, RULES).expect("a file");
    Config::load(Some(&file), std::iter::empty(), &Overrides::default()).unwrap_or_else(|faults| panic!("{faults}"))
}

/// Writes an image as an OCI layout, tagged `v1`, and returns the digest of its manifest.
fn image(folder: &Path) -> String {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a folder");
    let blob = |content: &[u8]| {
        let hash: String = digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(blobs.join(&hash), content).expect("a file");
        (format!("sha256:{hash}"), content.len())
    };
    // A tar with nothing in it ends with two empty records.
    let (layer, layer_size) = blob(&[0; 1024]);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    let (config, config_size) = blob(config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
        "layers": [
            { "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": layer_size },
        ],
    });
    let (manifest, size) = blob(manifest.to_string().as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": size,
        "annotations": { "org.opencontainers.image.ref.name": "v1" },
    }] });
    std::fs::write(folder.join("index.json"), index.to_string()).expect("a file");
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
    manifest
}

fn password(account: &str) -> Login {
    Login(account.to_owned(), "open sesame".to_owned())
}

/// Logs in, pushes and pulls, before and after a rotation that the bundle foresaw.
async fn works(scene: &Scene) {
    let writer = Login::of(&scene.writer);
    scene.push(&writer, "team/first:v1").await.done();
    assert_eq!(scene.pull(&writer, "team/first:v1").await.done(), scene.digest);
    scene.rotate().await;
    scene.push(&writer, "team/second:v1").await.done();
    for name in ["team/first:v1", "team/second:v1"] {
        assert_eq!(scene.pull(&writer, name).await.done(), scene.digest, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_pushed_and_pulled_by_those_who_may() {
    let Some(scene) = Scene::start(Algorithm::Rs256, KeyName::Libtrust).await else { return };
    let (writer, reader, stranger) = (Login::of(&scene.writer), Login::of(&scene.reader), Login::of(&scene.stranger));

    // By key and by password, once for many commands.
    for login in [&writer, &password("ann")] {
        scene.log_in(login).await.done();
        scene.push_logged_in("team/app:v1").await.done();
    }
    let wrong_key = Login(writer.0.clone(), reader.1.clone());
    for wrong in [wrong_key.clone(), Login("ann".into(), "wrong".into()), Login("nobody".into(), "open sesame".into())]
    {
        scene.log_in(&wrong).await.denied("invalid username/password");
    }
    scene.push(&wrong_key, "team/app:v2").await.denied("invalid username/password");

    // Who may pull may not do more.
    for login in [&reader, &password("bob")] {
        assert_eq!(scene.pull(login, "team/app:v1").await.done(), scene.digest);
    }
    scene.push(&reader, "team/app:v2").await.denied("denied");
    scene.delete(&reader, "team/app:v1").await.denied("unauthorized");
    scene.pull(&stranger, "team/app:v1").await.denied("denied");
    scene.push(&stranger, "team/app:v2").await.denied("denied");
    let nobody = scene.skopeo(&["inspect", "--no-creds", &scene.reference("team/app:v1")], "").await;
    nobody.denied("unauthorized");

    // What is one's own is nobody else's.
    scene.push(&stranger, "eve/app/deep:v1").await.done();
    assert_eq!(scene.pull(&stranger, "eve/app/deep:v1").await.done(), scene.digest);
    scene.pull(&reader, "eve/app/deep:v1").await.denied("denied");
    scene.delete(&stranger, "eve/app/deep:v1").await.denied("unauthorized");

    // All that was refused has left no trace.
    assert_eq!(scene.pull(&writer, "team/app:v1").await.done(), scene.digest);
    scene.pull(&writer, "team/app:v2").await.denied("manifest unknown");
    scene.delete(&writer, "team/app:v1").await.done();
    scene.pull(&writer, "team/app:v1").await.denied("manifest unknown");

    // Who is revoked is out when the tokens of before are dead, and gets no new ones at once.
    scene.gateway.revoke_key(&scene.writer).await;
    scene.gateway.sync().await;
    scene.log_in(&writer).await.denied("invalid username/password");
}

/// The bundle has the next key, so that a planned rotation goes unnoticed; one in an emergency takes a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_and_a_registry_that_is_restarted_knows_the_new_one() {
    let Some(mut scene) = Scene::start(Algorithm::Rs256, KeyName::Libtrust).await else { return };
    works(&scene).await;
    let writer = Login::of(&scene.writer);
    scene.operations.emergency().await.expect("a rotation");
    scene.gateway.sync().await;
    scene.pull(&writer, "team/first:v1").await.denied("unauthorized");
    scene.start_registry().await;
    assert_eq!(scene.pull(&writer, "team/first:v1").await.done(), scene.digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn es256_signs_for_it_as_well() {
    let Some(scene) = Scene::start(Algorithm::Es256, KeyName::Libtrust).await else { return };
    works(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_in_the_token_names_the_key_as_well() {
    let Some(scene) = Scene::start(Algorithm::Rs256, KeyName::X5c).await else { return };
    works(&scene).await;
}
