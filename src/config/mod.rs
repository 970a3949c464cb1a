//! The configuration: defaults, file, environment and command line joined, with every fault reported at once.
//!
//! A setting comes from the command line, else from the environment, else from the file, else it has its default.
//! `tokens.lifetime` in the file is `KEYBEARER__TOKENS__LIFETIME` in the environment. Without a file the defaults hold;
//! `config/gateway.toml` documents them all. Relative paths, in the file too, are relative to the working directory.
//!
//! Each room owns its `Settings`; this one knows how they are written and which values they may have.

mod checks;
mod claims;
mod domain;
mod faults;
mod plans;
mod reader;
mod repositories;
mod route_checks;
mod routing;
mod sections;
mod suggest;
mod upstreams;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

pub use faults::{Fault, Faults, Origin};

use self::reader::{Reader, position};
use crate::keys::KeyPrefix;
use crate::plans as room;
use crate::proxy::upstream::UpstreamSettings;
use crate::{
    access, credentials, forward_auth, groups::demo, licences, notices, routes, server, signing, telemetry, tls,
    tokens, usage, webhook,
};

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
    /// `[licences]`
    pub licences: licences::Settings,
    /// `[notices]`: when licences' ends are announced.
    pub notices: notices::Settings,
    /// `[notices]`: where to, besides the log.
    pub webhook: Option<webhook::Settings>,
    /// `[usage]`
    pub usage: usage::Settings,
    /// `[quotas]`
    pub quotas: room::Settings,
    /// `[[plans]]`
    pub plans: Vec<room::Plan>,
    /// `[forward_auth]`, where other proxies may ask.
    pub forward_auth: Option<forward_auth::Settings>,
    /// `[image_registry]` and `[[repositories]]`
    pub image_registry: Option<crate::repositories::Settings>,
    /// `[[upstreams]]`
    pub upstreams: Vec<UpstreamSettings>,
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
            licences: licences::Settings::default(),
            notices: notices::Settings::default(),
            webhook: None,
            usage: usage::Settings::default(),
            quotas: room::Settings::default(),
            plans: vec![],
            forward_auth: None,
            image_registry: None,
            upstreams: vec![],
            routes: routes::default_routes(),
        }
    }
}

/// What the command line sets; it has the last word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--admin-listen`
    pub admin_listen: Option<SocketAddr>,
}

/// The environment of this process, for [`Config::load`]. What is not Unicode is made so: [`std::env::vars`] would panic
/// for a variable that is not even ours.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

impl Config {
    /// How long a token issued by this configuration may be accepted, at the most: its life, and the leeway on top.
    pub fn longest_token(&self) -> Duration {
        let demo = if self.demo.enabled { self.demo.token_lifetime } else { Duration::ZERO };
        let registry = self.image_registry.as_ref().map_or(Duration::ZERO, |_| crate::repositories::LIFETIME);
        self.tokens.lifetime.max(demo).max(registry) + self.tokens.leeway
    }

    /// Joins the defaults, `file`, `environment` and `overrides`.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, Faults> {
        let name = file.map(|file| file.display().to_string()).unwrap_or_default();
        let (text, unreadable) = match file.map(read_file) {
            Some(Ok(text)) => (text, None),
            Some(Err((problem, remedy))) => {
                (String::new(), Some(Fault { path: name.clone(), problem, origin: None, remedy, snippet: None }))
            }
            None => (String::new(), None),
        };
        let (table, faulty) = match DeTable::parse(&text) {
            Ok(table) => (table.into_inner(), unreadable),
            Err(error) => (DeTable::new(), Some(syntax_fault(&name, &text, &error))),
        };
        let mut reader = Reader::new(&name, &text, environment);
        let config = Self::read(&table, faulty, overrides, &mut reader);
        reader.finish().map(|()| config)
    }

    fn read<'i>(table: &'i DeTable<'i>, faulty: Option<Fault>, overrides: &Overrides, reader: &mut Reader<'i>) -> Self {
        let mut config = Self::default();
        let mut lists = sections::Lists::default();
        reader.root(table, |root| lists = sections::read(root, &mut config));
        let sections::Lists { registry, repositories, claims, upstreams, plans, routes } = lists;
        let Overrides { data_dir, listen, admin_listen } = overrides.clone();
        if let Some(folder) = data_dir {
            config.data_dir = folder;
            reader.overridden("data_dir", "--data-dir");
        }
        if let Some(address) = listen {
            config.server.listen = address;
            reader.overridden("server.listen", "--listen");
        }
        if let Some(address) = admin_listen {
            config.server.admin_listen = address;
            reader.overridden("server.admin_listen", "--admin-listen");
        }
        match faulty {
            // Without the file, what only the environment says would seem to be half missing.
            Some(fault) => reader.push(fault),
            None => {
                checks::settings(&config, reader);
                claims::check(&claims, reader);
                repositories::check(&registry, &repositories, &config, reader);
                upstreams::check(&upstreams, reader);
                let ids: Vec<_> = upstreams.iter().filter_map(|upstream| upstream.id.clone()).collect();
                plans::check(&plans, routes.as_deref().unwrap_or_default(), &config.demo, reader);
                route_checks::routes(routes.as_deref().unwrap_or_default(), &ids, reader);
            }
        }
        config.tokens.claims = claims::settled(claims);
        config.image_registry = repositories::settled(registry, repositories);
        config.plans = plans::settled(plans);
        config.upstreams = upstreams::settled(upstreams);
        if let Some(routes) = routes {
            config.routes = routing::settled(routes);
        }
        config
    }
}

/// The text of the file, or what is wrong with it and what to do.
fn read_file(file: &Path) -> Result<String, (String, String)> {
    let bytes = std::fs::read(file).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => "correct --config, or leave it out to use the built-in defaults",
            std::io::ErrorKind::PermissionDenied => "let the user that runs keybearer read it",
            _ => "name a readable TOML file with --config",
        };
        (format!("cannot be read: {error}"), remedy.to_owned())
    })?;
    String::from_utf8(bytes)
        .map_err(|_| ("is not UTF-8 text".into(), "save it as UTF-8; TOML knows no other encoding".into()))
}

fn syntax_fault(name: &str, text: &str, error: &toml::de::Error) -> Fault {
    let start = error.span().map_or(0, |span| span.start);
    let (line, column) = position(text, start);
    let number = line.to_string();
    let content: String = text.lines().nth(line - 1).unwrap_or_default().chars().take(200).collect();
    let mark = " ".repeat((column - 1).min(200));
    Fault {
        path: format!("{name}:{line}:{column}"),
        problem: error.message().replace('\n', ", "),
        origin: None,
        remedy: "correct the TOML there".into(),
        snippet: Some(format!("  {number} | {content}\n  {} | {mark}^", " ".repeat(number.len()))),
    }
}

#[cfg(test)]
mod tests;
