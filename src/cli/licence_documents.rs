//! `keybearer licences issue|install|inspect|vendor-key`: signed licence documents.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::Failure;
use super::licences::look_at_plan;
use super::view::{self, DocumentView, LicenceView, Named};
use super::when::{When, show_end};
use super::{Session, private_file};
use crate::ids::{AccountName, GroupId, LicenceId, TokenId, scope};
use crate::licences::document::{self, MOST_BYTES};
use crate::licences::{Document, DocumentError, Documents, Installed, Operations, STANDARD_PLAN, VendorKey};
use crate::plans::Limit;

#[derive(Debug, Subcommand)]
pub(super) enum VendorKeyCommand {
    /// Make a key: a new file that its owner alone may read. The public half is printed on standard output.
    New {
        /// The file to make; one that is there is never overwritten.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the public half of a key.
    Show {
        /// The file of the key.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct IssueArgs {
    /// Sign it; a document without a signature is worth nothing.
    #[arg(long, required = true)]
    sign: bool,
    /// The file of the vendor's private key.
    #[arg(long, value_name = "FILE")]
    vendor_key: PathBuf,
    /// Who issues it, for people; the id of the key when not given.
    #[arg(long, value_name = "NAME")]
    vendor: Option<String>,
    /// The licensee's account on their gateway.
    #[arg(long)]
    account: AccountName,
    /// A group it grants; may be given several times.
    #[arg(long = "group", alias = "groups", value_name = "GROUP", required = true, value_delimiter = ',')]
    groups: Vec<GroupId>,
    /// The name of a plan.
    #[arg(long, default_value = STANDARD_PLAN)]
    plan: String,
    /// How many keys the account may have; any number when not given.
    #[arg(long, value_name = "N")]
    seats: Option<u32>,
    /// A limit by its name in plans, such as requests_per_month=100000, to which gateways hold the licensee, or a number of
    /// your own, which they show; may be given several times.
    #[arg(long = "quota", value_name = "NAME=N")]
    quotas: Vec<Quota>,
    /// When it begins: a date, an instant, or a span such as 7d; now when not given.
    #[arg(long, value_name = "WHEN")]
    from: Option<When>,
    /// When it ends: a date, an instant, or a span such as 365d; never when not given.
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
    /// The licence that this is a newer document of; a new one when not given.
    #[arg(long, value_name = "ID")]
    licence: Option<LicenceId>,
    /// The file to write; standard output when not given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A quota as it is typed.
#[derive(Debug, Clone)]
struct Quota(String, u64);

impl FromStr for Quota {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "write a name, '=' and a whole number, as in requests_per_month=100000";
        let (name, number) = text.split_once('=').ok_or(RULE)?;
        number.parse().map(|number| Self(name.to_owned(), number)).map_err(|_| RULE)
    }
}

pub(super) fn vendor_key(session: &mut Session<'_, '_>, command: &VendorKeyCommand) -> Result<(), Failure> {
    let (file, key) = match command {
        VendorKeyCommand::New { file } => {
            let key = VendorKey::generate()?;
            private_file::write_new(file, &key.to_pem()?)?;
            session.out.note(&format!(
                "{} holds a new vendor key; whoever has it can make licences, and without it none can be renewed: keep a copy",
                file.display()
            ));
            session.out.hint("customers put what is printed here into licences.vendor_keys of their configuration");
            (file, key)
        }
        VendorKeyCommand::Show { file } => (file, VendorKey::read(file)?),
    };
    let public = key.public();
    if session.out.json() {
        let view = json!({ "id": public.id(), "public_key": public.to_string(), "file": file });
        return session.out.document(&json!({ "vendor_key": view }));
    }
    session.out.data(&public.to_string())
}

pub(super) fn issue(session: &mut Session<'_, '_>, args: IssueArgs) -> Result<(), Failure> {
    let key = VendorKey::read(&args.vendor_key)?;
    let now = session.now();
    let quotas = quotas(session, args.quotas)?;
    let document = Document {
        id: TokenId::random(),
        vendor: args.vendor.unwrap_or_else(|| key.public().id()),
        licence: args.licence.unwrap_or_else(LicenceId::random),
        issued_at: now,
        starts_at: args.from.map_or(now, |when| when.resolve(now)),
        ends_at: args.until.map(|when| when.resolve(now)),
        account: args.account,
        groups: args.groups.into_iter().collect(),
        plan: args.plan,
        seats: args.seats,
        quotas,
    };
    if let Some(end) = document.ends_at.filter(|end| *end <= now) {
        return Err(Failure::mendable(format!("the end {end} is in the past")));
    }
    let text = document::armour(&document.sign(&key)?);
    if let Some(path) = &args.out {
        std::fs::write(path, &text)
            .map_err(|error| Failure::mendable(format!("{} could not be written: {error}", path.display())))?;
    }
    session.out.note(&format!(
        "licence {} grants {} to account \"{}\" from {} to {}, signed with vendor key {}",
        document.licence,
        scope(&document.groups),
        document.account,
        document.starts_at,
        show_end(document.ends_at),
        key.public().id()
    ));
    session.out.note(&format!("to renew it, issue another with --licence {}", document.licence));
    if session.out.json() {
        return session.out.document(&json!({ "document": DocumentView::new(&document), "text": text }));
    }
    if args.out.is_some() { Ok(()) } else { session.out.data(text.trim_end()) }
}

/// Quotas by their names. One that no gateway holds anybody to may be meant so, or be mistyped.
fn quotas(session: &mut Session<'_, '_>, given: Vec<Quota>) -> Result<BTreeMap<String, u64>, Failure> {
    let mut quotas = BTreeMap::new();
    for Quota(name, number) in given {
        if !Limit::NAMES.contains(&&*name) {
            session.out.warn(&format!(
                "gateways show the quota \"{name}\", and it bounds nothing; those that they hold to are {}",
                Limit::NAMES.join(", ")
            ));
        }
        if let Some(other) = quotas.insert(name.clone(), number) {
            return Err(Failure::misuse(format!("--quota {name} is there twice, with {other} and {number}")));
        }
    }
    Ok(quotas)
}

pub(super) async fn install(
    session: &mut Session<'_, '_>,
    operations: &Operations,
    file: &Path,
    create_groups: bool,
) -> Result<(), Failure> {
    let Installed { changed, document, created } = operations.install(&read(file)?, create_groups).await?;
    for group in &created {
        session.out.note(&format!("created group \"{group}\""));
    }
    look_at_plan(session, &document.plan);
    let (id, account) = (&changed.record.id, &changed.record.account);
    let done = format!(
        "licence {id}: installed from a document of {} for account \"{account}\": it grants {} until {}",
        document.vendor,
        scope(&document.groups),
        show_end(document.ends_at)
    );
    let view = LicenceView::new(&changed.record, session.now());
    let already = format!("licence {id}: this very document is installed already");
    view::changed(
        session.out,
        &changed,
        &view,
        &done,
        &already,
        &format!("the tokens of account \"{account}\" issued so far, by password and by all its keys,"),
    )
}

pub(super) fn inspect(session: &mut Session<'_, '_>, file: &Path) -> Result<(), Failure> {
    let compact = document::unarmour(&read(file)?)?;
    let (document, key) = Document::unproven(&compact)?;
    let proven = Documents::new(&session.config.licences).verify(&compact);
    match &proven {
        Ok(_) => {
            session.out.note(&format!("the signature is good: made with vendor key {key}, which is believed here"))
        }
        Err(error) => session.out.warn(&error.to_string()),
    }
    let view = DocumentView::new(&document);
    if session.out.json() {
        session.out.document(&json!({ "document": Named(&view).0, "vendor_key": key, "believed": proven.is_ok() }))?;
    } else {
        view::show(session.out, &view)?;
    }
    match proven {
        // That a vendor is not known here says nothing against the document.
        Ok(_) | Err(DocumentError::UnknownKey(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A document's file; what is far too long for one is not read to its end.
fn read(file: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let failed = |error| Failure::mendable(format!("{} cannot be read: {error}", file.display()));
    let mut bytes = Vec::new();
    let most = 2 * MOST_BYTES as u64 + 1;
    std::fs::File::open(file).map_err(failed)?.take(most).read_to_end(&mut bytes).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| DocumentError::Form.into())
}
