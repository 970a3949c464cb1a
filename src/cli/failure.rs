//! Why a command failed: the text, what to do next, and the exit status.

use std::error::Error;
use std::io;

use super::Exit;
use crate::config::Faults;
use crate::{accounts, credentials, groups, keys, licences, persist, revocations, signing};

/// A failed command.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    hint: Option<String>,
    exit: Exit,
}

impl Failure {
    /// Failed for a reason the user can mend.
    pub(super) fn mendable(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: Exit::Failed }
    }

    /// The command was used wrongly.
    pub(super) fn misuse(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: Exit::Misuse }
    }

    /// Something that cannot happen did.
    pub(super) fn ours(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: Exit::Misuse }
    }

    /// What stdout refused.
    pub(super) fn stdout(error: io::Error) -> Self {
        Self::mendable(format!("the output could not be written: {error}"))
    }

    /// Says what to do next.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn what_next(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(super) fn exit(&self) -> Exit {
        self.exit
    }
}

/// An error and all that caused it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::mendable(faults.to_string())
    }
}

impl From<persist::Error> for Failure {
    fn from(error: persist::Error) -> Self {
        let failure = Self::mendable(chain(&error));
        match error {
            persist::Error::Unavailable(_) => {
                failure.hint("another process may be holding the database; nothing was changed, so try again")
            }
            _ => failure,
        }
    }
}

impl From<credentials::HashError> for Failure {
    fn from(error: credentials::HashError) -> Self {
        Self::mendable(error.to_string()).hint("see [credentials] argon2_* in the configuration")
    }
}

const NO_ACCOUNT: &str = "keybearer accounts list shows those there are; accounts create makes one";
const NO_GROUP: &str = "keybearer groups list shows those there are; groups create makes one";
const NO_KEY: &str = "keybearer keys list shows those there are";

impl From<accounts::Error> for Failure {
    fn from(error: accounts::Error) -> Self {
        use accounts::Error as E;
        match error {
            E::Store(error) => error.into(),
            E::Unknown(_) => Self::mendable(error.to_string()).hint(NO_ACCOUNT),
            _ => Self::mendable(error.to_string()),
        }
    }
}

impl From<groups::Error> for Failure {
    fn from(error: groups::Error) -> Self {
        use groups::Error as E;
        let text = error.to_string();
        match error {
            E::Store(error) => error.into(),
            E::Unknown(_) => Self::mendable(text).hint(NO_GROUP),
            E::InUse { licences, keys, .. } => {
                let mut names: Vec<String> = licences.iter().map(|id| format!("licence {id}")).collect();
                names.extend(keys.iter().map(|id| format!("key {id}")));
                Self::mendable(text)
                    .hint(format!("--force deletes it all the same; it is named by {}", names.join(", ")))
            }
            _ => Self::mendable(text),
        }
    }
}

impl From<keys::Error> for Failure {
    fn from(error: keys::Error) -> Self {
        use keys::Error as E;
        let text = error.to_string();
        match error {
            E::Store(error) => error.into(),
            E::Hash(error) => error.into(),
            E::Unknown(_) => Self::mendable(text).hint(NO_KEY),
            E::NoAccount(_) => Self::mendable(text).hint(NO_ACCOUNT),
            E::NoGroup(_) => Self::mendable(text).hint(NO_GROUP),
            E::NoSeat(seats) => Self::mendable(text).hint(format!(
                "end a key (keybearer keys list --account {}; keys revoke KEY), or buy seats: licences upgrade {} --seats N",
                seats.account,
                seats.limit.licences.first().map_or("LICENCE", |id| id.as_str())
            )),
            E::NoFreeId => Self::ours(text),
            E::Suspended(id) => Self::mendable(text).hint(format!("keybearer keys resume {id}")),
            E::Expired(id) => Self::mendable(text).hint(format!("keybearer keys set-expiry {id} 90d")),
            E::Rolling(id, _) => Self::mendable(text).hint(format!(
                "end the old one first: keybearer keys end-old {id} (or roll with --force, which does both; its tokens die)"
            )),
            _ => Self::mendable(text),
        }
    }
}

impl From<licences::Error> for Failure {
    fn from(error: licences::Error) -> Self {
        use licences::Error as E;
        let text = error.to_string();
        match error {
            E::Store(error) => error.into(),
            E::Unknown(_) => Self::mendable(text).hint("keybearer licences list shows those there are"),
            E::NoAccount(_) => Self::mendable(text).hint(NO_ACCOUNT),
            E::NoGroup(_) => Self::mendable(text).hint(NO_GROUP),
            E::HadTrial { .. } => Self::mendable(text).hint("--again grants another all the same"),
            E::NoFreeId => Self::ours(text),
            _ => Self::mendable(text),
        }
    }
}

impl From<licences::DocumentError> for Failure {
    fn from(error: licences::DocumentError) -> Self {
        Self::mendable(error.to_string())
    }
}

impl From<licences::VendorKeyError> for Failure {
    fn from(error: licences::VendorKeyError) -> Self {
        Self::mendable(error.to_string())
    }
}

impl From<revocations::Error> for Failure {
    fn from(error: revocations::Error) -> Self {
        use revocations::Error as E;
        let text = error.to_string();
        match error {
            E::Store(error) => error.into(),
            E::NoKey(_) => Self::mendable(text).hint(NO_KEY),
            E::NoAccount(_) => Self::mendable(text).hint(NO_ACCOUNT),
            E::Future(_) => Self::mendable(text),
        }
    }
}

impl From<signing::Error> for Failure {
    fn from(error: signing::Error) -> Self {
        use signing::Error as E;
        let text = error.to_string();
        match error {
            E::Store(error) => error.into(),
            E::TooEarly(_) => Self::mendable(text).hint(
                "rotate without --now plans it; after a key got into wrong hands: signing-keys rotate --emergency",
            ),
            E::Supplied(_) => Self::mendable(text)
                .hint("after the key got into wrong hands: put a new one there, then signing-keys rotate --emergency"),
            E::Generate | E::Sign | E::Seal | E::TooLarge { .. } => Self::ours(text),
            _ => Self::mendable(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes() {
        let full = persist::Error::Full("no space left on device".into());
        let failure = Failure::from(full);
        assert!(failure.message().contains("the disk is full"), "{}", failure.message());
        assert!(failure.message().ends_with(": no space left on device"), "{}", failure.message());
        assert_eq!(failure.exit(), Exit::Failed);
    }
}
