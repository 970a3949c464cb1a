//! `keybearer check`: configuration, store and certificates looked over, every finding told. Changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::failure::Failure;
use super::output::Output;
use super::{Exit, Session, store};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Faults, StoreKind};
use crate::groups::demo;
use crate::ids::GroupId;
use crate::keys::KeyState;
use crate::licences::{Documents, Licence};
use crate::proxy::upstream::Upstreams;
use crate::store::SharedStore;
use crate::webhook::Webhook;
use crate::{signing, tls};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    Warning,
    Fault,
}

#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    subject: &'static str,
    text: String,
}

#[derive(Debug, Default)]
struct Report(Vec<Finding>);

impl Report {
    fn ok(&mut self, subject: &'static str, text: impl Into<String>) {
        self.0.push(Finding { level: Level::Ok, subject, text: text.into() });
    }

    fn warning(&mut self, subject: &'static str, text: impl Into<String>) {
        self.0.push(Finding { level: Level::Warning, subject, text: text.into() });
    }

    fn fault(&mut self, subject: &'static str, text: impl Into<String>) {
        self.0.push(Finding { level: Level::Fault, subject, text: text.into() });
    }

    fn print(self, out: &mut Output<'_>) -> Result<Exit, Failure> {
        let count = |level| self.0.iter().filter(|finding| finding.level == level).count();
        let (faults, warnings) = (count(Level::Fault), count(Level::Warning));
        if out.json() {
            out.document(&serde_json::json!({ "ok": faults == 0, "findings": self.0 }))?;
        } else {
            let lines: Vec<String> = self
                .0
                .iter()
                .map(|finding| {
                    let word = match finding.level {
                        Level::Ok => "ok",
                        Level::Warning => "warning",
                        Level::Fault => "fault",
                    };
                    // What a text of several lines goes on with stands below its beginning.
                    let text = finding.text.replace('\n', "\n                        ");
                    format!("{word:8} {:14} {text}", finding.subject)
                })
                .collect();
            out.data(&lines.join("\n"))?;
            out.note(&format!("{}, {}", counted(faults, "fault"), counted(warnings, "warning")));
        }
        Ok(if faults == 0 { Exit::Done } else { Exit::Failed })
    }
}

/// The report of a configuration that cannot be used: nothing else can be checked.
pub(super) fn faulty(out: &mut Output<'_>, faults: &Faults) -> Result<Exit, Failure> {
    let mut report = Report::default();
    for fault in faults.list() {
        report.fault("configuration", fault.to_string());
    }
    report.print(out)
}

pub(super) async fn run(session: &mut Session<'_, '_>) -> Result<Exit, Failure> {
    let mut report = Report::default();
    report.ok(
        "configuration",
        format!("{}, data folder {}", counted(session.config.routes.len(), "route"), session.config.data_dir.display()),
    );
    certificate(&session.config, session.now(), &mut report);
    upstreams(&session.config, &mut report);
    if let Some(settings) = &session.config.webhook {
        match Webhook::new(settings) {
            Ok(_) if settings.secret_file.is_none() => {
                report.warning(
                    "notices",
                    "they are not signed, so their receiver cannot tell who sent them; set notices.secret_file",
                );
            }
            Ok(_) => report.ok("notices", "they are posted and signed"),
            Err(error) => report.fault("notices", error.to_string()),
        }
    }
    if let Some(store) = records(session, &mut report).await
        && let Err(error) = references(&session.config, &store, &session.clock, &mut report).await
    {
        report.fault("store", Failure::from(error).message());
    }
    report.print(session.out)
}

/// Opens and looks over the database, unless there is none yet: a check makes nothing.
async fn records(session: &mut Session<'_, '_>, report: &mut Report) -> Option<SharedStore> {
    if session.config.store == StoreKind::Memory {
        report.warning("store", "store = \"memory\": every account, key and licence is gone when the gateway ends");
        return None;
    }
    let path = store::database(&session.config);
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => {
            report.ok(
                "store",
                format!("{} does not exist yet; it is made when the gateway first starts", path.display()),
            );
            return None;
        }
        Err(error) => {
            report.fault("store", format!("{} cannot be looked at: {error}", path.display()));
            return None;
        }
    }
    match store::open_checked(&path).await {
        Ok((store, findings)) => {
            if findings.is_empty() {
                report.ok("store", format!("{} is healthy", path.display()));
            }
            for finding in findings {
                report.fault("store", format!("{}: {finding}", path.display()));
            }
            Some(store)
        }
        Err(error) => {
            report.fault("store", Failure::from(error).message());
            None
        }
    }
}

/// Names in records and routes that lead nowhere. They deny, so they are warnings: nothing is open that should not be.
async fn references(
    config: &Config,
    store: &SharedStore,
    clock: &Arc<dyn Clock>,
    report: &mut Report,
) -> crate::persist::Result<()> {
    let mut known: BTreeSet<GroupId> = store.groups().await?.into_iter().map(|group| group.id).collect();
    known.insert(demo::group());
    for route in &config.routes {
        for group in route.groups.iter().filter(|group| !known.contains(group)) {
            let text = format!(
                "route \"{}\" asks for group \"{group}\", which does not exist: nobody can be licensed for it; \
                 keybearer groups create {group}",
                route.id
            );
            report.warning("routes", text);
        }
    }
    if let Some(registry) = &config.image_registry {
        let rules = registry.rules.iter().enumerate();
        let named =
            rules.flat_map(|(at, rule)| rule.groups.iter().map(move |group| (format!("repositories[{at}]"), group)));
        let catalog = registry.catalog_groups.iter().map(|group| ("image_registry.catalog_groups".to_owned(), group));
        for (place, group) in named.chain(catalog).filter(|(_, group)| !known.contains(group)) {
            let text =
                format!("{place} names group \"{group}\", which does not exist; keybearer groups create {group}");
            report.warning("repositories", text);
        }
    }
    let now = clock.now();
    let licences = store.licences(None).await?;
    for licence in licences.iter().filter(|licence| licence.ends_at.is_none_or(|end| now < end)) {
        for group in licence.groups.iter().filter(|group| !known.contains(group)) {
            let text = format!(
                "licence {} of account \"{}\" names group \"{group}\", which does not exist, and grants nothing by it",
                licence.id, licence.account
            );
            report.warning("licences", text);
        }
    }
    documents(config, &licences, store.latest_time().await?, now, report);
    let keys = store.keys(None).await?;
    for key in keys.iter().filter(|key| key.state != KeyState::Revoked) {
        for group in key.groups.iter().flatten().filter(|group| !known.contains(group)) {
            let name = config.key_prefix.name_of(&key.id);
            report.warning("keys", format!("key {name} is narrowed to group \"{group}\", which does not exist"));
        }
    }
    let accounts = store.accounts().await?.len();
    let operations =
        signing::Operations::new(Arc::clone(store) as _, &config.signing, config.longest_token(), Arc::clone(clock));
    if let Err(error) = operations.check().await {
        report.fault("signing", Failure::from(error).message());
    }
    let signing = store.signing_keys().await?.len();
    report.ok(
        "records",
        format!("accounts {accounts}, keys {}, licences {}, signing keys {signing}", keys.len(), licences.len()),
    );
    Ok(())
}

/// Licences from documents, as the gateway itself would believe them.
fn documents(config: &Config, licences: &[Licence], latest: Timestamp, now: Timestamp, report: &mut Report) {
    let documents = Documents::new(&config.licences);
    documents.learn(latest);
    let installed: Vec<&Licence> = licences.iter().filter(|licence| licence.document.is_some()).collect();
    for licence in &installed {
        if let Err(distrust) = documents.settled((*licence).clone()) {
            let (id, account) = (licence.id, &licence.account);
            report.fault("licences", format!("licence {id} of account \"{account}\" grants nothing: {distrust}"));
        }
    }
    if (documents.are_used() || !installed.is_empty()) && documents.is_set_back(now) {
        let latest = documents.latest();
        report.fault(
            "clock",
            format!(
                "it shows {now}, and it was {latest} before: no licence from a document grants anything; set it right"
            ),
        );
    }
}

/// The operator's certificate, as the gateway itself would load it. The local authority's is not opened: that could make it.
fn certificate(config: &Config, now: Timestamp, report: &mut Report) {
    if config.tls.certificate.is_none() && config.tls.private_key.is_none() {
        return report.ok("tls", "the gateway makes a certificate of its own in the data folder");
    }
    match tls::Watched::open(&config.tls, &config.data_dir, now) {
        Err(faults) => faults.list().iter().for_each(|fault| report.fault("tls", fault.to_string())),
        Ok(watched) => {
            let tls::Summary { names, not_after, warnings, .. } = &watched.material().summary;
            report.ok("tls", format!("the certificate for {} is valid until {not_after}", names.join(", ")));
            warnings.iter().for_each(|warning| report.warning("tls", warning.to_string()));
        }
    }
}

/// Upstreams with the files they name, as the gateway itself would make them. Nothing is connected to.
fn upstreams(config: &Config, report: &mut Report) {
    if config.upstreams.is_empty() {
        return;
    }
    match Upstreams::new(&config.upstreams) {
        Ok(_) => {
            let targets = config.upstreams.iter().map(|upstream| upstream.targets.len()).sum();
            let text = format!("{}, {}", counted(config.upstreams.len(), "upstream"), counted(targets, "target"));
            report.ok("upstreams", text);
        }
        Err(errors) => errors.iter().for_each(|error| report.fault("upstreams", error.to_string())),
    }
}

fn counted(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}
