//! `keybearer keys import` and `export`: many keys at once, with progress on stderr.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::Serialize;

use super::super::failure::Failure;
use super::super::{Session, plans};
use crate::ids::{AccountName, PlanId};
use crate::keys::{Line, Looked, Operations};

/// So many are written in one transaction: long enough to be fast, short enough that a gateway that runs need not wait.
const AT_ONCE: usize = 2000;

/// After so many the progress is told.
const TOLD_EVERY: usize = 10_000;

/// A line is no longer, in bytes: nobody's key takes as much.
const LONGEST: u64 = 64 * 1024;

/// What an import did.
#[derive(Serialize)]
struct Imported {
    imported: usize,
    already_there: usize,
    dry_run: bool,
}

pub(super) async fn import(
    session: &mut Session<'_, '_>,
    operations: &Operations,
    file: &Path,
    dry_run: bool,
) -> Result<(), Failure> {
    let Looked { new, present, faults, faulty } = look(session, operations, file).await?;
    for (line, fault) in &faults {
        session.out.note(&format!("line {line}: {fault}"));
    }
    if faulty > faults.len() {
        session.out.note(&format!("… and {} more", faulty - faults.len()));
    }
    if faulty > 0 {
        let lines = if faulty == 1 { "1 line".to_owned() } else { format!("{faulty} lines") };
        return Err(Failure::mendable(format!("{lines} cannot be taken in; nothing was written")));
    }
    let named: BTreeSet<&PlanId> = new.iter().filter_map(|key| key.plan.as_ref()).collect();
    for plan in named {
        plans::warn_of_unknown(session, plan.as_str());
    }
    let mut imported = 0;
    if !dry_run {
        for (number, some) in new.chunks(AT_ONCE).enumerate() {
            imported += operations.take_in(some).await.map_err(|error| {
                Failure::from(error)
                    .hint(format!("written so far: {}; run it again with the same file for the rest", keys(imported)))
            })?;
            let done = number * AT_ONCE + some.len();
            if done.is_multiple_of(TOLD_EVERY) {
                session.out.note(&format!("{done} of {} written", new.len()));
            }
        }
    }
    let count = if dry_run { new.len() } else { imported };
    let verb = if dry_run { "would be imported" } else { "imported" };
    let (keys, are) = (keys(count), if present == 1 { "is" } else { "are" });
    session.out.note(&format!("{keys} {verb}; {present} {are} there already"));
    if session.out.json() {
        session.out.document(&Imported { imported: count, already_there: present, dry_run })?;
    }
    Ok(())
}

/// So many of them.
fn keys(count: usize) -> String {
    if count == 1 { "1 key".to_owned() } else { format!("{count} keys") }
}

/// The first pass: every line is looked at.
async fn look(session: &mut Session<'_, '_>, operations: &Operations, file: &Path) -> Result<Looked, Failure> {
    let shown = file.display();
    let failed = |error: std::io::Error| Failure::mendable(format!("{shown} could not be read: {error}"));
    let from: Box<dyn Read + '_> = match file == Path::new("-") {
        true => Box::new(&mut *session.stdin),
        false => Box::new(File::open(file).map_err(failed)?),
    };
    let mut from = BufReader::new(from);
    let mut look = operations.look().await?;
    let mut line = Vec::new();
    for number in 1usize.. {
        line.clear();
        if (&mut from).take(LONGEST).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        if line.len() as u64 == LONGEST {
            return Err(Failure::mendable(format!("{shown}: line {number} is too long to be a key")));
        }
        let text = std::str::from_utf8(&line)
            .map_err(|_| Failure::mendable(format!("{shown}: line {number} is not UTF-8 text")))?;
        // A mark of the byte order (RFC 8259 §8.1 lets readers pass over it): some editors write one.
        let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { text };
        look.at(text).await?;
        if number.is_multiple_of(TOLD_EVERY) {
            session.out.note(&format!("{number} lines looked at"));
        }
    }
    Ok(look.done())
}

pub(super) async fn export(
    session: &mut Session<'_, '_>,
    operations: &Operations,
    account: Option<&AccountName>,
) -> Result<(), Failure> {
    let now = session.now();
    let keys = operations.list(account).await?;
    for some in keys.chunks(AT_ONCE) {
        let lines: Result<Vec<String>, _> = some.iter().map(|key| serde_json::to_string(&Line::of(key, now))).collect();
        session.out.data(&lines.map_err(|error| Failure::ours(error.to_string()))?.join("\n"))?;
    }
    let keys = self::keys(keys.len());
    session.out.note(&format!("{keys}, with their hashes: keep them as secret as the database"));
    Ok(())
}
