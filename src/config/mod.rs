//! The configuration: defaults, file, environment and command line joined, with every fault reported at once.

use std::path::PathBuf;

use crate::keys::KeyPrefix;
use crate::{access, credentials, groups::demo, routes, server, signing, telemetry, tls, tokens};

/// Where records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreKind {
    /// An embedded database in the data folder.
    #[default]
    Sqlite,
    /// Nowhere: all is gone with the process. For trying out and tests.
    Memory,
}

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The folder of keys, certificates and the database.
    pub data_dir: PathBuf,
    /// What API keys begin with.
    pub key_prefix: KeyPrefix,
    /// Where records are kept.
    pub store: StoreKind,
    /// `[server]`
    pub server: server::Settings,
    /// `[limits]`
    pub limits: server::Limits,
    /// `[tls]`
    pub tls: tls::Settings,
    /// `[access]`
    pub access: access::Settings,
    /// `[tokens]`
    pub tokens: tokens::Settings,
    /// `[signing]`
    pub signing: signing::Settings,
    /// `[credentials]`
    pub credentials: credentials::Settings,
    /// `[demo]`
    pub demo: demo::Settings,
    /// `[logging]`
    pub logging: telemetry::Settings,
    /// `[[routes]]`
    pub routes: Vec<routes::RouteSettings>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
            key_prefix: KeyPrefix::default(),
            store: StoreKind::default(),
            server: server::Settings::default(),
            limits: server::Limits::default(),
            tls: tls::Settings::default(),
            access: access::Settings::default(),
            tokens: tokens::Settings::default(),
            signing: signing::Settings::default(),
            credentials: credentials::Settings::default(),
            demo: demo::Settings::default(),
            logging: telemetry::Settings::default(),
            routes: routes::default_routes(),
        }
    }
}
