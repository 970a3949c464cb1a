//! The gateway under test, and the records it works with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keybearer::accounts::Account;
use keybearer::clock::{Clock, ManualClock, SystemClock, Timestamp};
use keybearer::config::Config;
use keybearer::credentials::{self, Hasher, Kept, PasswordHash};
use keybearer::groups::Group;
use keybearer::ids::{Groups, LicenceId};
use keybearer::keys::{self, ApiKey, Key, KeyState};
use keybearer::licences::Licence;
use keybearer::limits::Rate;
use keybearer::persist::{Cut, Update, Updated};
use keybearer::proxy::upstream::UpstreamSettings;
use keybearer::registry::Registry;
use keybearer::routes::RouteSettings;
use keybearer::secret::Secret;
use keybearer::server::{BehindProxy, Follower, ForwardedHeader, Gateway, StartError};
use keybearer::store::{MemoryStore, SharedStore, SqliteStore};
use keybearer::telemetry::Sink;
use tempfile::TempDir;

use crate::{client::Clients, forge};

/// The group of the default route `/sample/*`.
pub const SAMPLE: &str = "sample";

/// TLS by aws-lc-rs, for clients that take the provider of the process.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    static PROVIDER: OnceLock<Arc<rustls::crypto::CryptoProvider>> = OnceLock::new();
    let provider = PROVIDER.get_or_init(|| {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.clone().install_default().expect("nobody else installs one");
        Arc::new(provider)
    });
    Arc::clone(provider)
}

/// What is started: see [`TestGateway::build`].
pub struct Builder {
    config: Config,
    store: Option<SharedStore>,
    on_disk: bool,
    real_time: bool,
    clock: Arc<ManualClock>,
    dir: Arc<TempDir>,
    sink: Option<Sink>,
}

impl Builder {
    /// With other settings.
    pub fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// With a store of the test's own.
    pub fn store(mut self, store: SharedStore) -> Self {
        self.store = Some(store);
        self
    }

    /// With SQLite in the data folder, in place of memory.
    pub fn sqlite(mut self) -> Self {
        self.on_disk = true;
        self
    }

    /// On the database of another gateway, and by its clock.
    pub async fn beside(mut self, other: &TestGateway) -> Self {
        self.clock = Arc::clone(&other.clock);
        self.store = Some(Arc::new(other.other_process().await));
        self
    }

    /// By the system's clock: only for what is about real time.
    pub fn real_time(mut self) -> Self {
        self.real_time = true;
        self
    }

    /// With a listener for a load balancer in these networks.
    pub fn behind_proxy(self, trusted: &[&str]) -> Self {
        let trusted = trusted.iter().map(|network| network.parse().expect("a network")).collect();
        self.with(|config| {
            config.server.behind_proxy =
                Some(BehindProxy { listen: any_port(), trusted, header: ForwardedHeader::default() })
        })
    }

    /// With an upstream.
    pub fn upstream(self, settings: UpstreamSettings) -> Self {
        self.with(|config| config.upstreams.push(settings))
    }

    /// With a route.
    pub fn route(self, settings: RouteSettings) -> Self {
        self.with(|config| config.routes.push(settings))
    }

    /// With a request log.
    pub fn log_to(mut self, sink: Sink) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Starts it.
    pub async fn start(self) -> TestGateway {
        self.try_to_start().await.unwrap_or_else(|error| panic!("the gateway does not start: {error}"))
    }

    /// Starts it, if it can be started.
    pub async fn try_to_start(self) -> Result<TestGateway, StartError> {
        let Self { config, store, on_disk, real_time, clock, dir, sink } = self;
        provider();
        let mut sqlite = None;
        let store: SharedStore = match store {
            Some(store) => store,
            None if on_disk => {
                let store = SqliteStore::open(&config.data_dir.join("keybearer.db")).await.expect("a database");
                Arc::clone(sqlite.insert(Arc::new(store))) as _
            }
            None => Arc::new(MemoryStore::new()),
        };
        let time: Arc<dyn Clock> = if real_time { Arc::new(SystemClock) } else { Arc::clone(&clock) as _ };
        let gateway = Gateway::start(&config, Arc::clone(&store), Arc::clone(&time), sink.as_ref()).await?;
        let clients = Clients::new(gateway.local_authority().expect("a local authority"));
        Ok(TestGateway { gateway, store, sqlite, clock, time, real_time, config, dir, clients })
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A running gateway.
pub struct TestGateway {
    pub gateway: Gateway,
    pub store: SharedStore,
    pub config: Config,
    pub clients: Clients,
    sqlite: Option<Arc<SqliteStore>>,
    clock: Arc<ManualClock>,
    pub time: Arc<dyn Clock>,
    real_time: bool,
    dir: Arc<TempDir>,
}

impl TestGateway {
    /// A gateway with the default configuration, but for what tests need: any free port, a folder of its own, hashes that
    /// cost nothing, and a signing key that the test has too.
    pub fn build() -> Builder {
        let dir = Arc::new(TempDir::new().expect("a folder"));
        let signing_key = dir.path().join("signing.pem");
        std::fs::write(&signing_key, forge::ours().pem()).expect("a file");
        let mut config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        std::fs::create_dir(&config.data_dir).expect("a folder");
        (config.server.listen, config.server.admin_listen) = (any_port(), any_port());
        config.signing.private_key_file = Some(signing_key);
        config.credentials = cheap();
        config.access.contact = Some("sales@example.com".into());
        // The certificate is checked by clients that know no other time than the real one.
        let start = Timestamp::from_secs(SystemClock.now().secs());
        let clock = Arc::new(ManualClock::new(start));
        Builder { config, store: None, on_disk: false, real_time: false, clock, dir, sink: None }
    }

    /// The usual one.
    pub async fn start() -> Self {
        Self::build().start().await
    }

    /// Stops, and starts another on the same data folder.
    pub async fn restart(self) -> Self {
        let Self { gateway, store, sqlite, clock, config, dir, real_time, .. } = self;
        gateway.shut_down(Duration::ZERO).await;
        let on_disk = sqlite.is_some();
        if let Some(sqlite) = sqlite {
            sqlite.close().await;
        }
        let store = (!on_disk).then_some(store);
        Builder { config, store, on_disk, real_time, clock, dir, sink: None }.start().await
    }

    pub fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// Moves time forward. What the gateway does of its own accord by the clock is done before the next request, or
    /// asked for with [`TestGateway::sync`].
    pub fn advance(&self, by: Duration) {
        assert!(!self.real_time, "real time cannot be advanced");
        self.clock.advance(by);
    }

    /// Moves the clock back: it was ahead, and is put right.
    pub fn set_back(&self, by: Duration) {
        assert!(!self.real_time, "real time cannot be set back");
        self.clock.set_back(by);
    }

    pub fn registry(&self) -> &Registry {
        self.gateway.registry()
    }

    pub fn follower(&self) -> &Follower {
        self.gateway.follower()
    }

    /// Puts into force what was written to the store.
    pub async fn sync(&self) {
        self.follower().sync().await.expect("the store answers");
    }

    /// The certificate to trust.
    pub fn authority(&self) -> PathBuf {
        self.gateway.local_authority().expect("a local authority").clone()
    }

    pub fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    pub fn https(&self) -> SocketAddr {
        self.gateway.addresses().https
    }

    /// The parameter of every Bearer challenge that says where the metadata is.
    pub fn resource_metadata(&self) -> String {
        let port = self.https().port();
        format!("resource_metadata=\"https://localhost:{port}/.well-known/oauth-protected-resource\"")
    }

    /// The database, opened once more, as by another process.
    pub async fn other_process(&self) -> SqliteStore {
        SqliteStore::open(&self.config.data_dir.join("keybearer.db")).await.expect("the database")
    }

    // Records, written as another process would: straight into the store.

    pub async fn group(&self, id: &str, token_lifetime: Option<Duration>) {
        let group =
            Group { id: id.parse().expect("a group"), title: String::new(), token_lifetime, created_at: self.now() };
        assert!(self.store.insert_group(&group).await.expect("stored"), "{id} is new");
    }

    pub async fn account(&self, name: &str, password: Option<&str>) {
        let account = Account {
            name: name.parse().expect("an account name"),
            title: String::new(),
            password: password.map(|password| self.hash(password, Kept::Password)),
            suspended: false,
            expires_at: None,
            created_at: self.now(),
        };
        assert!(self.store.insert_account(&account).await.expect("stored"), "{name} is new");
    }

    pub async fn licence(&self, account: &str, groups: &[&str], ends_at: Option<Timestamp>) -> LicenceId {
        self.licence_on("", account, groups, ends_at).await
    }

    /// On a plan.
    pub async fn licence_on(
        &self,
        plan: &str,
        account: &str,
        groups: &[&str],
        ends_at: Option<Timestamp>,
    ) -> LicenceId {
        let licence = Licence {
            id: LicenceId::random(),
            account: account.parse().expect("an account name"),
            groups: group_set(groups),
            plan: plan.to_owned(),
            starts_at: self.now(),
            ends_at,
            suspended: false,
            seats: None,
            trial: false,
            document: None,
            quotas: [].into(),
            created_at: self.now(),
        };
        assert!(self.store.insert_licence(&licence).await.expect("stored"));
        licence.id
    }

    /// A new key of `account`.
    pub async fn key(&self, account: &str) -> ApiKey {
        self.key_with(account, |key| key).await
    }

    pub async fn key_with(&self, account: &str, change: impl FnOnce(Key) -> Key) -> ApiKey {
        let key = ApiKey::generate(&self.config.key_prefix);
        let account = account.parse().expect("an account name");
        let record = Key::new(*key.id(), account, self.hash(key.secret().expose(), Kept::Key), self.now());
        assert!(self.store.insert_key(&change(record)).await.expect("stored"));
        key
    }

    /// What an operator can do with keys, in another process.
    pub fn keys(&self) -> keys::Operations {
        let store = || Arc::clone(&self.store);
        let prefix = self.config.key_prefix.clone();
        keys::Operations::new(store() as _, store() as _, store() as _, Arc::clone(&self.time), prefix)
    }

    /// Rolls a key as an operator does, and lets the gateway know.
    pub async fn roll(&self, key: &ApiKey, grace: &str, start: keys::Start) -> ApiKey {
        let roll = keys::Roll { grace: grace.parse().expect("a grace"), start, force: false };
        let hash = async |text: Secret<String>| Ok(self.hash(text.expose(), Kept::Key));
        let (new, _) = self.keys().roll(key.id(), roll, hash).await.expect("rolled");
        self.sync().await;
        new
    }

    /// A hash with the gateway's own parameters.
    pub fn hash(&self, secret: &str, of: Kept) -> PasswordHash {
        let mut hasher = Hasher::new(&self.config.credentials).expect("good parameters");
        hasher.hash(secret.as_bytes(), of).expect("a hash")
    }

    /// The account `acme` with the password `open sesame` and an endless licence for the sample group; returns its key.
    pub async fn acme(&self) -> ApiKey {
        self.group(SAMPLE, None).await;
        self.account("acme", Some("open sesame")).await;
        self.licence("acme", &[SAMPLE], None).await;
        self.key("acme").await
    }

    pub async fn update_key(&self, key: &ApiKey, change: impl Fn(Key) -> (Key, Cut) + Send + Sync) {
        let change = |key| {
            let (key, cut) = change(key);
            Update::Write(key, cut)
        };
        let updated = self.store.update_key(key.id(), &change).await.expect("stored");
        assert!(matches!(updated, Updated::Done(_)));
    }

    pub async fn revoke_key(&self, key: &ApiKey) {
        let now = self.now();
        self.update_key(key, |key| (Key { state: KeyState::Revoked, ..key }, Cut::Forever(now))).await;
    }

    pub async fn update_account(&self, name: &str, change: impl Fn(Account) -> (Account, Cut) + Send + Sync) {
        let change = |account| {
            let (account, cut) = change(account);
            Update::Write(account, cut)
        };
        let name = name.parse().expect("an account name");
        let updated = self.store.update_account(&name, &change).await.expect("stored");
        assert!(matches!(updated, Updated::Done(_)));
    }

    pub async fn suspend_account(&self, name: &str) {
        let now = self.now();
        self.update_account(name, |account| (Account { suspended: true, ..account }, Cut::Now(now))).await;
    }

    pub async fn stop(self, grace: Duration) {
        // The folder must outlive the gateway.
        let Self { gateway, dir, .. } = self;
        gateway.shut_down(grace).await;
        drop(dir);
    }
}

/// Hashing that costs nothing, and no throttle that a test does not ask for.
fn cheap() -> credentials::Settings {
    let often = Rate::new(1_000_000, Duration::from_secs(1));
    credentials::Settings {
        argon2_memory_kib: 64,
        argon2_iterations: 1,
        failures_per_address: often,
        failures_per_user: often,
        failures_in_all: often,
        ..credentials::Settings::default()
    }
}

pub fn group_set(groups: &[&str]) -> Groups {
    groups.iter().map(|group| group.parse().expect("a group")).collect()
}
