//! What installing a document does, and what it refuses to do.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::accounts::{Account, AccountStore};
use crate::clock::{Clock, ManualClock};
use crate::groups::GroupStore;
use crate::ids::{LicenceId, TokenId};
use crate::licences::{Documents, LicenceStore, Settings, Upgrade, VendorKey};
use crate::store::MemoryStore;

const DAY: Duration = Duration::from_secs(86_400);

struct Office {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    vendor: VendorKey,
    licences: Operations,
}

impl Office {
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)));
        for name in ["acme", "other"] {
            let (name, created_at) = (name.parse().expect("a name"), clock.now());
            let account =
                Account { name, title: String::new(), password: None, suspended: false, expires_at: None, created_at };
            assert!(store.insert_account(&account).await.expect("a store"));
        }
        let vendor = VendorKey::generate().expect("a key");
        let licences = operations(&store, clock.clone(), &vendor);
        Self { store, clock, vendor, licences }
    }

    fn document(&self) -> Document {
        let now = self.clock.now();
        Document {
            id: TokenId::random(),
            vendor: "Widgets Ltd".into(),
            licence: "0123456789ab".parse().expect("an id"),
            issued_at: now,
            starts_at: now,
            ends_at: Some(now + 30 * DAY),
            account: "acme".parse().expect("a name"),
            groups: ["orders".parse().expect("a group")].into(),
            plan: "gold".into(),
            seats: Some(2),
            quotas: std::collections::BTreeMap::new(),
        }
    }

    fn text(&self, document: &Document) -> String {
        document::armour(&document.sign(&self.vendor).expect("a document"))
    }

    async fn install(&self, document: &Document) -> Result<Installed, Error> {
        self.licences.install(&self.text(document), true).await
    }
}

fn operations(store: &Arc<MemoryStore>, clock: Arc<dyn Clock>, vendor: &VendorKey) -> Operations {
    let documents = Documents::new(&Settings { vendor_keys: vec![vendor.public()] });
    Operations::new(store.clone(), store.clone(), store.clone(), clock).with_documents(Arc::new(documents))
}

#[tokio::test]
async fn a_document_makes_its_licence_and_its_groups_where_they_are_wanted() {
    let office = Office::new().await;
    let document = office.document();
    let refused = office.licences.install(&office.text(&document), false).await;
    assert!(matches!(refused, Err(Error::NoGroup(_))), "{refused:?}");
    assert_eq!(office.licences.list(None).await.expect("a store"), []);
    let installed = office.install(&document).await.expect("a licence");
    assert_eq!(installed.created, ["orders".parse().expect("a group")]);
    assert!(installed.changed.written && !installed.changed.tokens_cut);
    assert!(office.store.group(&"orders".parse().expect("a group")).await.expect("a store").is_some());
    let held = office.licences.show(&document.licence).await.expect("stored");
    assert_eq!((held.seats, held.ends_at, held.plan.as_str()), (Some(2), document.ends_at, "gold"));
    let again = office.licences.install(&office.text(&document), false).await.expect("the same");
    assert!(!again.changed.written);
}

#[tokio::test]
async fn a_newer_document_takes_the_place_of_an_older_one_and_never_the_other_way() {
    let office = Office::new().await;
    let first = office.document();
    office.install(&first).await.expect("a licence");
    office.clock.advance(DAY);
    let end = |days: u32| Some(first.starts_at + days * DAY);
    let second = Document { ends_at: end(90), id: TokenId::random(), issued_at: office.clock.now(), ..first.clone() };
    let renewed = office.install(&second).await.expect("a newer one");
    assert!(renewed.changed.written && !renewed.changed.tokens_cut);
    assert_eq!(renewed.changed.record.ends_at, end(90));
    let reports: crate::ids::GroupId = "reports".parse().expect("a group");
    let wider = Document { groups: [reports.clone()].into(), ..first.clone() };
    for older in [&first, &wider, &Document { id: TokenId::random(), seats: None, ..second.clone() }] {
        let refused = office.install(older).await;
        assert!(matches!(refused, Err(Error::OlderDocument { .. })), "{refused:?}");
    }
    assert_eq!(office.store.group(&reports).await.expect("a store"), None, "no group is made for what is refused");
    office.clock.advance(DAY);
    let newer = |document: Document| Document { issued_at: office.clock.now(), id: TokenId::random(), ..document };
    office.licences.suspend(&first.licence).await.expect("a licence");
    let fewer = newer(Document { groups: ["reports".parse().expect("a group")].into(), ..second.clone() });
    let lost = office.install(&fewer).await.expect("a newer one");
    assert!(lost.changed.tokens_cut, "a group was lost");
    assert!(lost.changed.record.suspended, "what an operator suspended stays so");
    let elsewhere = Document { account: "other".parse().expect("a name"), ..newer(second.clone()) };
    assert!(matches!(office.install(&elsewhere).await, Err(Error::OtherAccount(_))));
}

#[tokio::test]
async fn what_a_document_grants_only_a_document_changes() {
    let office = Office::new().await;
    let document = office.document();
    office.install(&document).await.expect("a licence");
    let (id, licences) = (document.licence, &office.licences);
    let plan = Upgrade { plan: Some("platinum".into()), ..Upgrade::default() };
    for refused in [
        licences.extend(&id, None).await,
        licences.extend_by(&id, DAY).await,
        licences.upgrade(&id, &plan).await,
        licences.set_groups(&id, &document.groups).await,
    ] {
        let refused = refused.expect_err("a refusal");
        assert!(
            matches!(refused, Error::FromDocument(_)) && refused.to_string().contains("ask its vendor"),
            "{refused}"
        );
    }
    assert!(licences.suspend(&id).await.expect("a licence").tokens_cut);
    assert!(licences.resume(&id).await.expect("a licence").written);
    assert!(licences.end(&id).await.expect("a licence").tokens_cut);

    let granted = Licence { id: LicenceId::random(), document: None, ..licences.show(&id).await.expect("a licence") };
    assert!(office.store.insert_licence(&granted).await.expect("a store"));
    let over = Document { licence: granted.id, ..office.document() };
    assert!(matches!(office.install(&over).await, Err(Error::GrantedHere(_))));
}

#[tokio::test]
async fn a_document_of_another_time_or_of_nobody_is_refused() {
    let office = Office::new().await;
    let (good, now) = (office.document(), office.clock.now());
    let refused = async |document: Document| office.install(&document).await.expect_err("a refusal");
    let early = Document { issued_at: now + TOLERANCE + Duration::from_secs(1), ..good.clone() };
    assert!(matches!(refused(early).await, Error::NotYetIssued { .. }));
    let past = Document { starts_at: now - 2 * DAY, ends_at: Some(now), ..good.clone() };
    assert!(matches!(refused(past).await, Error::DocumentEnded(_)));
    let nobody = Document { account: "nobody".parse().expect("a name"), ..good.clone() };
    assert!(matches!(refused(nobody).await, Error::NoAccount(_)));
    let garbage = office.licences.install("x", true).await.expect_err("a refusal");
    assert!(matches!(garbage, Error::Document(_)));
    let stranger = operations(&office.store, office.clock.clone(), &VendorKey::generate().expect("a key"));
    let unknown = stranger.install(&office.text(&good), true).await.expect_err("a refusal");
    assert!(unknown.to_string().contains("not one of licences.vendor_keys"), "{unknown}");

    // Installed once, its own date is remembered, and an earlier clock is known for one.
    office.install(&Document { issued_at: now + TOLERANCE, ..good.clone() }).await.expect("within the tolerance");
    assert_eq!(office.store.latest_time().await.expect("a store"), now + TOLERANCE);
    let earlier = Arc::new(ManualClock::new(now - DAY));
    let set_back = operations(&office.store, earlier, &office.vendor);
    let another = Document { licence: LicenceId::random(), issued_at: now - 2 * DAY, ..good };
    let refused = set_back.install(&office.text(&another), true).await.expect_err("a refusal");
    assert!(matches!(refused, Error::SetBack { .. }), "{refused}");
}
