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

/// As of a machine whose hardware clock is a year ahead until the time is got from the network.
#[test]
fn a_clock_that_was_ahead_and_is_put_right_soon_shuts_nobody_out() {
    let key = VendorKey::generate().expect("a key");
    let documents = trusting(&key);
    documents.settled(row(&document(), &key)).expect("a licence");
    for minute in 0..5 {
        documents.look(START + 365 * DAY + minute * LOOK_EVERY);
    }
    documents.look(START + 5 * LOOK_EVERY);
    assert!(!documents.is_set_back(START + 5 * LOOK_EVERY));
    assert_eq!(documents.latest(), START);
    // What goes on is believed, though one look came late.
    for minute in [6, 7, 9, 10] {
        documents.look(START + minute * LOOK_EVERY);
    }
    assert_eq!(documents.latest(), START + 10 * LOOK_EVERY);
}

/// What happens to a gateway's clock and process.
#[derive(Debug, Clone)]
enum Step {
    /// So many minutes pass, and the clock is looked at in each.
    Pass(u32),
    /// The clock goes so many seconds ahead at once.
    Leap(u64),
    SetBack(u64),
    Restart,
}

/// The latest time to be believed by all that was looked at in one process.
fn believed(looks: &[Timestamp]) -> Option<Timestamp> {
    let is_one_run =
        |looks: &[Timestamp]| looks.windows(2).all(|two| two[0] <= two[1] && two[1] <= two[0] + 2 * LOOK_EVERY);
    let is_believed = |end: &usize| {
        (0..*end).any(|from| is_one_run(&looks[from..*end]) && looks[from] + TOLERANCE <= looks[*end - 1])
    };
    (1..=looks.len()).filter(is_believed).map(|end| looks[end - 1]).max()
}

proptest! {
    /// Whatever is done with the clock, a licence grants nothing while it shows much less than it has shown for a while; and one
    /// that shows no less is never refused.
    #[test]
    fn a_clock_that_is_set_back_wins_nothing(
        steps in prop::collection::vec(prop_oneof![
            4 => (1..9u32).prop_map(Step::Pass),
            2 => (0..2_000_000u64).prop_map(Step::Leap),
            2 => (0..3_000_000u64).prop_map(Step::SetBack),
            1 => Just(Step::Restart),
        ], 1..30),
    ) {
        let key = VendorKey::generate().expect("a key");
        let licence = row(&document(), &key);
        let end = licence.ends_at.expect("an end");
        let (mut documents, mut now, mut latest) = (trusting(&key), START, START);
        let mut looks = Vec::new();
        for step in steps {
            let (minutes, before) = match step {
                Step::Pass(minutes) => (minutes, now),
                Step::Leap(secs) => (0, now + Duration::from_secs(secs)),
                Step::SetBack(secs) => (0, now - Duration::from_secs(secs)),
                // What was noted in the store is what is left.
                Step::Restart => {
                    let noted = documents.latest();
                    documents = trusting(&key);
                    documents.learn(noted);
                    looks.clear();
                    (0, now)
                }
            };
            for minute in 0..=minutes {
                now = before + minute * LOOK_EVERY;
                documents.look(now);
                looks.push(now);
            }
            latest = latest.max(believed(&looks).unwrap_or_default());
            let settled = documents.settled(licence.clone()).expect("a licence");
            let grants = !documents.is_set_back(now) && settled.is_live(now);
            prop_assert_eq!(grants, now + TOLERANCE >= latest && START <= now && now < end);
            if grants {
                prop_assert!(latest < end + TOLERANCE, "granted past its end");
            }
        }
    }
}
