//! The judge: a gateway with the example configuration, and its customers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keybearer::cli::examples::{Values, replace};
use keybearer::config::{Config, Overrides};
use keybearer::keys::{ApiKey, Start};
use keybearer::limits::Rate;
use keybearer::plans::Limit;
use serde_json::Value;

use crate::forge;
use crate::gateway::TestGateway;
use crate::proxies::Kind;
use crate::relay::Relay;

/// How often one address may use the Demo group; few, so that a test comes to the end of it.
pub const DEMO_REQUESTS: u32 = 3;

/// How often an account may use `/counted/…` in a day, by the route's plan.
pub const PLAN_REQUESTS: u32 = 2;

/// More than an answer to a proxy names.
const MANY_GROUPS: usize = 32;

const DEMO_KEY: &str = "kb_demodemodemo_ThisKeyIsPublicAndOpensDemoOnly01bQJ3X";

pub struct Keybearer {
    /// Between the proxy and the listener that it asks; a proxy that asks over the socket does not use it.
    pub relay: Relay,
    gateway: Option<TestGateway>,
    /// Of a customer who may use everything.
    key: ApiKey,
    socket: PathBuf,
    by_grpc: bool,
    // Holds the socket.
    _folder: tempfile::TempDir,
}

impl Keybearer {
    /// Starts one that `kind` can ask.
    pub async fn start(kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("authz.sock");
        let loaded = configuration(&folder.path().join("gateway.toml"), &socket);
        let builder = TestGateway::build().with(|config| {
            config.demo.requests_per_address = Rate::new(DEMO_REQUESTS, Duration::from_secs(3600));
            config.routes = loaded.routes;
            config.plans = loaded.plans;
            config.quotas = loaded.quotas;
            config.forward_auth = loaded.forward_auth;
        });
        let gateway = builder.start().await;
        for group in ["orders", "reports"] {
            gateway.group(group, None).await;
        }
        for (account, groups) in [("acme", &["orders", "reports"][..]), ("bob", &["reports"])] {
            gateway.account(account, Some("open sesame")).await;
            gateway.licence(account, groups, None).await;
        }
        // Whose name, groups and plan are as long as they may be, and as many as are told.
        let many: Vec<String> = (0..MANY_GROUPS).map(|n| format!("g{n:063}")).collect();
        for group in &many {
            gateway.group(group, None).await;
        }
        let many: Vec<&str> = many.iter().map(String::as_str).chain(["orders"]).collect();
        gateway.account(&longest(), Some("open sesame")).await;
        gateway.licence(&longest(), &many, None).await;
        let key = gateway.key("acme").await;
        let by_grpc = kind == Kind::EnvoyGrpc;
        let addresses = gateway.gateway.addresses();
        let asked = if by_grpc { addresses.grpc.expect("a listener for gRPC") } else { addresses.https };
        let relay = Relay::start(asked).await;
        Self { relay, gateway: Some(gateway), key, socket, by_grpc, _folder: folder }
    }

    fn gateway(&self) -> &TestGateway {
        self.gateway.as_ref().expect("it runs")
    }

    /// Where proxies find it.
    pub fn values(&self) -> Values {
        let authority = self.gateway().authority();
        let mut values = Values { authority, unix_socket: self.socket.clone(), ..Values::default() };
        if self.by_grpc {
            values.grpc = self.relay.address;
        } else {
            values.keybearer = self.relay.address;
        }
        values
    }

    /// A token for everything.
    pub async fn good(&self) -> String {
        self.gateway().token(&self.key).await
    }

    /// A token for everything, got with the secret that a key had before it was rolled.
    pub async fn old(&self) -> String {
        let key = self.gateway().key("acme").await;
        self.gateway().roll(&key, "24h", Start::Now).await;
        self.gateway().token(&key).await
    }

    /// A token of one who may see reports and no orders, got with a password.
    pub async fn narrow(&self) -> String {
        self.gateway().get("/token").basic("bob", "open sesame").await.token()
    }

    /// A token of one about whom there is as much to say as there can be.
    pub async fn long(&self) -> String {
        self.gateway().get("/token").basic(&longest(), "open sesame").await.token()
    }

    /// The Demo group's.
    pub async fn demo(&self) -> String {
        self.gateway().get("/token").basic(DEMO_KEY, "").await.token()
    }

    /// The claims of a token.
    pub fn claims(token: &str) -> Value {
        forge::claims(token)
    }

    /// Revokes the key of the customer who may use everything, and puts that into force.
    pub async fn revoke(&self) {
        self.gateway().revoke_key(&self.key).await;
        self.gateway().sync().await;
    }

    /// Ends the gateway.
    pub async fn stop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop(Duration::ZERO).await;
        }
    }
}

/// The longest name of an account.
fn longest() -> String {
    "a".repeat(128)
}

/// The example configuration, with everything switched on, a route for the Demo group, and two with plans.
fn configuration(file: &Path, socket: &Path) -> Config {
    let pairs = [
        ("#unix_socket = \"/run/keybearer/authz.sock\"", format!("unix_socket = \"{}\"", socket.display())),
        ("#grpc_listen = \"127.0.0.1:8445\"", "grpc_listen = \"127.0.0.1:0\"".to_owned()),
    ]
    .map(|(from, to)| (from.to_owned(), to));
    let text = replace(include_str!("../../config/examples/gateway.toml"), &pairs).expect("every literal is there");
    let demo = "\n[[routes]]\nid = \"free\"\npath = \"/free/*\"\ngroups = [\"demo\"]\nforward_auth = true\n";
    let counted = format!(
        "\n[[routes]]\nid = \"counted\"\npath = \"/counted/*\"\ngroups = [\"orders\"]\nplan = \"small\"\nforward_auth = true\n\
         \n[[plans]]\nid = \"small\"\nrequests_per_day = {PLAN_REQUESTS}\n\n[quotas]\nlegacy_fields = true\n"
    );
    let most = |name: &str| if name == "requests_per_second" { 1_000_000 } else { 999_999_999_999_999_u64 };
    let limits: String = Limit::NAMES.map(|name| format!("{name} = {}\n", most(name))).concat();
    let plan = "p".repeat(64);
    let long = format!(
        "\n[[routes]]\nid = \"long\"\npath = \"/long/*\"\ngroups = [\"orders\"]\nplan = \"{plan}\"\nforward_auth = true\n\
         \n[[plans]]\nid = \"{plan}\"\n{limits}"
    );
    std::fs::write(file, text + demo + &counted + &long).expect("a file");
    Config::load(Some(file), std::iter::empty(), &Overrides::default()).unwrap_or_else(|faults| panic!("{faults}"))
}

#[test]
fn the_configuration_of_the_compose_example_is_sound() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/compose/gateway.toml");
    let config = Config::load(Some(&file), std::iter::empty(), &Overrides::default());
    let config = config.unwrap_or_else(|faults| panic!("{faults}"));
    assert!(config.forward_auth.is_some_and(|settings| settings.unix_socket.is_some()));
}
