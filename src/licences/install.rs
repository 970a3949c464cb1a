//! Installing a signed document.

use super::documents::TOLERANCE;
use super::operations::cut_for;
use super::{Document, Error, Licence, Operations, document};
use crate::change::Changed;
use crate::clock::Timestamp;
use crate::groups::Group;
use crate::ids::GroupId;
use crate::persist::{Cut, Update};

/// What installing a document did.
#[derive(Debug)]
pub struct Installed {
    /// What became of the licence.
    pub changed: Changed<Licence>,
    /// What the document says.
    pub document: Document,
    /// Groups that were made for it.
    pub created: Vec<GroupId>,
}

impl Operations {
    /// Installs an armoured document: makes its licence, or puts it in the place of an older document of the same one. The
    /// account's tokens die when a group is lost, or one could outlive an earlier end.
    ///
    /// # Errors
    /// When the document cannot be believed, is older than the one installed, lies in the past or the future, names an account
    /// or (unless they are to be made) groups that do not exist, or the store fails.
    pub async fn install(&self, text: &str, create_groups: bool) -> Result<Installed, Error> {
        let compact = document::unarmour(text).map_err(Error::Document)?;
        let document = self.documents.verify(&compact).map_err(Error::Document)?;
        let now = self.clock.now();
        self.documents.learn(self.licences.latest_time().await?);
        if self.documents.is_set_back(now) {
            return Err(Error::SetBack { now, latest: self.documents.latest() });
        }
        if now + TOLERANCE < document.issued_at {
            return Err(Error::NotYetIssued { now, issued_at: document.issued_at });
        }
        if let Some(end) = document.ends_at.filter(|end| *end <= now) {
            return Err(Error::DocumentEnded(end));
        }
        self.account(&document.account).await?;
        // Looked at before any group is made, and again when it is replaced.
        if let Some(held) = self.licences.licence(&document.licence).await? {
            self.may_replace(&held, &compact, &document)?;
        }
        let created = self.make_groups(&document, create_groups, now).await?;
        let licence = Licence {
            id: document.licence,
            account: document.account.clone(),
            groups: document.groups.clone(),
            plan: document.plan.clone(),
            starts_at: document.starts_at,
            ends_at: document.ends_at,
            suspended: false,
            seats: document.seats,
            trial: false,
            document: Some(compact.clone()),
            quotas: document.quotas.clone(),
            created_at: now,
        };
        let changed = if self.licences.insert_licence(&licence).await? {
            Changed { record: licence, written: true, tokens_cut: false }
        } else {
            self.replace(&licence, &compact, &document).await?
        };
        self.licences.note_time(self.documents.learn(document.issued_at)).await?;
        Ok(Installed { changed, document, created })
    }

    async fn make_groups(&self, document: &Document, create: bool, now: Timestamp) -> Result<Vec<GroupId>, Error> {
        let mut created = Vec::new();
        for id in &document.groups {
            if self.groups.group(id).await?.is_some() {
                continue;
            }
            if !create {
                return Err(Error::NoGroup(id.clone()));
            }
            let group = Group { id: id.clone(), title: String::new(), token_lifetime: None, created_at: now };
            if self.groups.insert_group(&group).await? {
                created.push(id.clone());
            }
        }
        Ok(created)
    }

    async fn replace(&self, new: &Licence, compact: &str, document: &Document) -> Result<Changed<Licence>, Error> {
        self.update(&new.id, |held, now| {
            self.may_replace(&held, compact, document)?;
            if held.document.as_deref() == Some(compact) {
                return Ok(Update::Keep);
            }
            let after = Licence { suspended: held.suspended, ..new.clone() };
            let starts_later = after.starts_at > now && held.starts_at <= now;
            let cut = if starts_later { Cut::Now(now) } else { cut_for(&held, &after, now) };
            Ok(Update::Write(after, cut))
        })
        .await
    }

    /// Whether the document, which is also here as it came, may take the place of what there is of its licence.
    fn may_replace(&self, held: &Licence, compact: &str, document: &Document) -> Result<(), Error> {
        let Some(installed) = &held.document else { return Err(Error::GrantedHere(held.id)) };
        if held.account != document.account {
            return Err(Error::OtherAccount(held.id));
        }
        match self.documents.verify(installed) {
            Ok(older) if installed != compact && document.issued_at <= older.issued_at => {
                Err(Error::OlderDocument { id: held.id, installed: older.issued_at, offered: document.issued_at })
            }
            // One that cannot be believed any more stands in nobody's way.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
