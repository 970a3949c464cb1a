//! Whatever is done to the row or to the clock, a document grants what it says, while it says so, or nothing.

use proptest::prelude::*;

use super::*;
use crate::ids::{LicenceId, TokenId};
use crate::licences::VendorKey;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn groups(names: &[&str]) -> crate::ids::Groups {
    names.iter().map(|name| name.parse().expect("a group")).collect()
}

fn document() -> Document {
    Document {
        id: TokenId::random(),
        vendor: "Widgets Ltd".into(),
        licence: LicenceId::random(),
        issued_at: START,
        starts_at: START,
        ends_at: Some(START + 30 * DAY),
        account: "acme".parse().expect("a name"),
        groups: groups(&["orders"]),
        plan: "gold".into(),
        seats: Some(2),
        quotas: [("requests_per_month".to_owned(), 7)].into(),
    }
}

fn row(document: &Document, key: &VendorKey) -> Licence {
    Licence {
        id: document.licence,
        account: document.account.clone(),
        groups: document.groups.clone(),
        plan: document.plan.clone(),
        starts_at: document.starts_at,
        ends_at: document.ends_at,
        suspended: false,
        seats: document.seats,
        trial: false,
        document: Some(document.sign(key).expect("a document")),
        quotas: document.quotas.clone(),
        created_at: START,
    }
}

fn trusting(key: &VendorKey) -> Documents {
    Documents::new(&Settings { vendor_keys: vec![key.public()] })
}

#[test]
fn what_was_written_into_the_row_counts_for_nothing() {
    let key = VendorKey::generate().expect("a key");
    let documents = trusting(&key);
    let honest = row(&document(), &key);
    let tampered = Licence {
        groups: groups(&["orders", "everything"]),
        plan: "platinum".into(),
        starts_at: Timestamp::default(),
        ends_at: Some(START + 3000 * DAY),
        seats: None,
        trial: true,
        ..honest.clone()
    };
    assert_eq!(documents.settled(tampered), Ok(honest.clone()));
    let endless = Licence { ends_at: None, ..honest.clone() };
    assert_eq!(documents.settled(endless), Ok(honest.clone()));
    let ended = Licence { ends_at: Some(START + DAY), suspended: true, ..honest.clone() };
    assert_eq!(documents.settled(ended.clone()), Ok(ended), "what an operator ended or suspended stays so");

    let copied = Licence { id: LicenceId::random(), ..honest.clone() };
    assert_eq!(documents.settled(copied), Err(Distrust::Elsewhere));
    let given = Licence { account: "other".parse().expect("a name"), ..honest.clone() };
    assert_eq!(documents.settled(given), Err(Distrust::Elsewhere));
    let forged = row(&document(), &VendorKey::generate().expect("a key"));
    let refused = documents.settled(forged.clone());
    assert!(matches!(refused, Err(Distrust::Document(DocumentError::UnknownKey(_)))), "{refused:?}");
    let altered =
        Licence { document: honest.document.as_ref().map(|text| text.replacen('e', "f", 1)), ..honest.clone() };
    assert!(documents.settled(altered).is_err());
    assert!(Documents::default().settled(honest.clone()).is_err(), "nobody is believed by default");

    let granted = Licence { document: None, groups: groups(&["x"]), ..honest.clone() };
    assert_eq!(documents.believed(vec![forged, granted.clone(), honest.clone()]), [granted, honest]);
}

#[test]
fn a_document_says_what_time_it_was_at_least() {
    let key = VendorKey::generate().expect("a key");
    let documents = trusting(&key);
    assert!(!documents.is_set_back(START - DAY));
    documents.settled(row(&document(), &key)).expect("a licence");
    assert_eq!(documents.latest(), START);
    assert!(documents.is_set_back(START - DAY));
    assert!(!documents.is_set_back(START - TOLERANCE));
    assert!(documents.is_set_back(START - TOLERANCE - Duration::from_millis(1)));
}

/// What happens to a gateway's clock and process.
#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    SetBack(u64),
    Restart,
}

proptest! {
    /// Whatever is done with the clock, the sum of the time in which a licence grants anything is no longer than it is by
    /// the latest time that was ever seen; and a clock that was not set back is never refused.
    #[test]
    fn a_clock_that_is_set_back_wins_nothing(
        steps in prop::collection::vec(prop_oneof![
            4 => (0..200_000u64).prop_map(Step::Pass),
            2 => (0..3_000_000u64).prop_map(Step::SetBack),
            1 => Just(Step::Restart),
        ], 1..60),
    ) {
        let key = VendorKey::generate().expect("a key");
        let licence = row(&document(), &key);
        let end = licence.ends_at.expect("an end");
        let (mut documents, mut now, mut seen) = (trusting(&key), START, START);
        for step in steps {
            match step {
                Step::Pass(secs) => now = now + Duration::from_secs(secs),
                Step::SetBack(secs) => now = now - Duration::from_secs(secs),
                // What was noted in the store is what is left.
                Step::Restart => {
                    let latest = documents.latest();
                    documents = trusting(&key);
                    documents.learn(latest);
                }
            }
            let settled = documents.settled(licence.clone()).expect("a licence");
            let grants = !documents.is_set_back(now) && settled.is_live(now);
            seen = seen.max(now);
            prop_assert_eq!(grants, now + TOLERANCE >= seen && START <= now && now < end);
            if grants {
                prop_assert!(seen < end + TOLERANCE, "granted past its end");
            }
        }
    }
}
