//! Signed licence documents at a running gateway: enforced with no call home, whatever is done to row and clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keybearer::clock::Timestamp;
use keybearer::ids::{LicenceId, TokenId};
use keybearer::licences::document::armour;
use keybearer::licences::{Document, Documents, LOOK_EVERY, Licence, Operations, Settings, VendorKey};
use keybearer::persist::{Cut, Update};
use keybearer::store::{MemoryStore, SharedStore};

use crate::gateway::{SAMPLE, TestGateway, group_set};

const DAY: Duration = Duration::from_secs(86_400);

pub async fn gateway(vendor: &VendorKey, store: &SharedStore) -> TestGateway {
    let vendor_keys = vec![vendor.public()];
    let build = TestGateway::build().with(|config| config.licences.vendor_keys = vendor_keys);
    build.store(Arc::clone(store)).start().await
}

pub async fn install(gateway: &TestGateway, vendor: &VendorKey, quotas: BTreeMap<String, u64>) -> LicenceId {
    let now = gateway.now();
    let document = Document {
        id: TokenId::random(),
        vendor: "Widgets Ltd".into(),
        licence: LicenceId::random(),
        issued_at: now,
        starts_at: now,
        ends_at: Some(now + 30 * DAY),
        account: "acme".parse().expect("a name"),
        groups: group_set(&[SAMPLE]),
        plan: "gold".into(),
        seats: None,
        quotas,
    };
    let documents = Documents::new(&Settings { vendor_keys: vec![vendor.public()] });
    let store = || Arc::clone(&gateway.store);
    let operations = Operations::new(store() as _, store() as _, store() as _, Arc::clone(&gateway.time))
        .with_documents(Arc::new(documents));
    let text = armour(&document.sign(vendor).expect("a document"));
    operations.install(&text, false).await.expect("installed");
    gateway.sync().await;
    document.licence
}

#[tokio::test]
async fn a_document_counts_as_it_was_signed_whatever_the_row_says() {
    let vendor = VendorKey::generate().expect("a key");
    let gateway = gateway(&vendor, &(Arc::new(MemoryStore::new()) as SharedStore)).await;
    gateway.group(SAMPLE, None).await;
    gateway.group("extra", None).await;
    gateway.account("acme", None).await;
    let id = install(&gateway, &vendor, BTreeMap::new()).await;
    let key = gateway.key("acme").await;
    assert_eq!(gateway.token_call(&key).await.json()["scope"], "demo sample");

    let set = async |change: fn(Licence) -> Licence| {
        let update = move |licence| Update::Write(change(licence), Cut::No);
        gateway.store.update_licence(&id, &update).await.expect("stored");
        gateway.sync().await;
    };
    set(|licence| Licence { groups: group_set(&[SAMPLE, "extra"]), ends_at: None, ..licence }).await;
    assert_eq!(gateway.token_call(&key).await.json()["scope"], "demo sample", "the row grants nothing");
    gateway.advance(30 * DAY - Duration::from_secs(60));
    assert_eq!(gateway.token_call(&key).await.json()["expires_in"], 60, "the document's end holds");
    set(|licence| Licence { document: licence.document.map(|text| text.replacen('e', "f", 1)), ..licence }).await;
    gateway.token_call(&key).await.problem(401, "invalid-credentials");
}

/// Until the clock is believed to have shown `at`: it goes on from there.
async fn goes_on(gateway: &TestGateway, store: &SharedStore, at: Timestamp) {
    for _ in 0..1000 {
        if store.latest_time().await.expect("a time") >= at {
            return;
        }
        gateway.advance(LOOK_EVERY);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    panic!("the clock is not believed");
}

/// It is put right by the network soon after a boot, and no customer is shut out for it.
#[tokio::test]
async fn a_clock_that_was_a_year_ahead_for_a_minute_is_not_believed() {
    let vendor = VendorKey::generate().expect("a key");
    let store: SharedStore = Arc::new(MemoryStore::new());
    let gateway = gateway(&vendor, &store).await;
    gateway.group(SAMPLE, None).await;
    gateway.account("acme", None).await;
    install(&gateway, &vendor, BTreeMap::new()).await;
    let key = gateway.key("acme").await;
    gateway.advance(365 * DAY);
    gateway.token_call(&key).await.problem(401, "invalid-credentials");
    for _ in 0..2 {
        gateway.advance(LOOK_EVERY);
        tokio::task::yield_now().await;
    }
    gateway.set_back(365 * DAY);
    assert_eq!(gateway.token_call(&key).await.status, 200);
    assert_eq!(gateway.get("/health/ready").await.status, 200);
    install(&gateway, &vendor, BTreeMap::new()).await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_makes_documents_grant_nothing_until_it_is_right() {
    let vendor = VendorKey::generate().expect("a key");
    let store: SharedStore = Arc::new(MemoryStore::new());
    let before = gateway(&vendor, &store).await;
    before.group(SAMPLE, None).await;
    before.account("acme", None).await;
    before.account("local", None).await;
    before.licence("local", &[SAMPLE], None).await;
    install(&before, &vendor, BTreeMap::new()).await;
    let (key, local) = (before.key("acme").await, before.key("local").await);
    before.advance(31 * DAY);
    before.token_call(&key).await.problem(401, "invalid-credentials");
    let ended_at = before.now();
    goes_on(&before, &store, ended_at).await;
    before.gateway.shut_down(Duration::from_secs(5)).await;

    // A month earlier the licence would be in force.
    let after = gateway(&vendor, &store).await;
    assert!(after.now() < ended_at - 30 * DAY);
    after.token_call(&key).await.problem(401, "invalid-credentials");
    assert_eq!(after.token_call(&local).await.status, 200, "what was granted here needs no clock of a vendor");
    assert_eq!(after.get("/health/ready").await.status, 503);
    after.advance(10 * DAY);
    after.token_call(&key).await.problem(401, "invalid-credentials");
    after.advance(22 * DAY);
    assert_eq!(after.get("/health/ready").await.status, 200);
    // Time has caught up: a document that is in force grants again.
    install(&after, &vendor, BTreeMap::new()).await;
    assert_eq!(after.token_call(&key).await.status, 200);
}
