//! One suite for every backend: what the store traits promise, stamped on a backend by `store_conformance!`.
//!
//! A case takes a [`Bench`], which has an empty store and a second handle on the same one: for a durable backend another
//! connection, as another process would hold it. Cases use the traits alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::accounts::Account;
use crate::clock::Timestamp;
use crate::credentials::PasswordHash;
use crate::groups::Group;
use crate::ids::{AccountName, GroupId, Groups, KeyId, LicenceId, TokenId};
use crate::keys::{End, Half, Key, KeyState, Stamp};
use crate::licences::Licence;
use crate::licences::seats::{self, Seating};
use crate::persist::{Cut, Inserted, Update, Updated};
use crate::revocations::{Change, Changes, Cutoff, LONGEST_TOKEN, Revocation, Target};
use crate::secret::Secret;
use crate::signing::{SigningKey, SigningState};
use crate::store::SharedStore;

mod counts;
mod cuts;
mod fits;
mod notices;
mod records;
mod usage;
mod writers;

pub(crate) use counts::*;
pub(crate) use cuts::*;
pub(crate) use fits::*;
pub(crate) use notices::*;
pub(crate) use records::*;
pub(crate) use usage::*;
pub(crate) use writers::*;

/// An empty store, and what keeps it.
pub(crate) struct Bench {
    /// The store.
    pub(crate) store: SharedStore,
    /// The same store by another handle.
    pub(crate) other: SharedStore,
    /// Where it lies, if it lies anywhere; removed when the case ends.
    pub(crate) folder: Option<tempfile::TempDir>,
}

/// Stamps the suite on a backend: `store_conformance!(name, constructor)`, where the constructor is the path, seen from
/// a module beside the call, of an `async fn() -> Bench`.
macro_rules! store_conformance {
    ($name:ident, $bench:path) => {
        store_conformance!(@cases $name, $bench, [
            accounts_keep_every_field,
            groups_keep_every_field_and_can_go,
            keys_keep_every_field,
            an_old_half_is_kept_and_found_when_it_ends,
            stamps_are_put_on_the_right_half,
            many_keys_are_added_all_or_none,
            many_keys_take_the_seats_there_are,
            licences_keep_every_field,
            signing_keys_are_one_set_in_order,
            a_new_set_of_signing_keys_may_end_every_token,
            a_second_insert_changes_nothing,
            what_belongs_to_an_account_needs_one,
            lists_are_ordered_and_filtered,
            an_update_of_nothing_is_missing,
            keep_changes_and_tells_nothing,
            what_must_not_change_stays,
            a_cut_comes_with_its_change,
            cutoffs_grow_within_one_second,
            cutoffs_grow_beyond_those_that_share_tokens,
            forever_never_shrinks,
            a_token_is_revoked_for_good,
            everything_before_an_instant,
            a_cut_may_lie_before,
            revocations_are_one_per_target_oldest_first,
            a_revocation_is_forgotten_at_its_instant,
            the_feed_tells_everything_in_order,
            an_unknown_version_is_lost,
            the_feed_forgets_after_an_hour,
            versions_outlive_forgetting,
            no_update_is_lost_under_a_hundred_writers,
            no_signing_key_is_lost_under_many_writers,
            feed_versions_appear_in_order_under_many_writers,
            seats_are_never_exceeded_by_many_creators,
            a_key_that_comes_back_takes_a_seat,
            one_of_many_equal_trials_is_granted,
            notices_keep_every_field_and_are_forgotten,
            a_notice_is_claimed_by_one_of_many,
            licences_are_found_by_their_end,
            the_latest_time_only_grows,
            two_handles_see_one_store,
            usage_is_added_up_and_told_apart,
            usage_is_filtered_by_everything_it_is_kept_by,
            a_batch_of_usage_is_added_once,
            no_usage_is_lost_under_many_writers,
            old_usage_is_forgotten_by_the_day,
            counts_are_added_up_and_told_apart,
            a_batch_of_counts_is_added_once,
            no_count_is_lost_between_many_gateways,
            counts_are_forgotten_when_they_end,
        ]);
    };
    (@cases $name:ident, $bench:path, [$($case:ident),* $(,)?]) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::store::conformance::$case($bench().await).await;
                }
            )*
        }
    };
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn name(text: &str) -> AccountName {
    text.parse().expect("an account name")
}

fn key_id(digit: char) -> KeyId {
    digit.to_string().repeat(12).parse().expect("a key id")
}

fn licence_id(digit: char) -> LicenceId {
    digit.to_string().repeat(12).parse().expect("a licence id")
}

fn group_id(text: &str) -> GroupId {
    text.parse().expect("a group id")
}

fn groups(names: &[&str]) -> Groups {
    names.iter().map(|name| group_id(name)).collect()
}

fn account(of: &str) -> Account {
    Account {
        name: name(of),
        title: String::new(),
        password: None,
        suspended: false,
        expires_at: None,
        created_at: at(1),
    }
}

fn key(id: char, of: &str) -> Key {
    let hash = PasswordHash::from_phc("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA".to_owned());
    Key::new(key_id(id), name(of), hash, at(1))
}

fn licence(id: char, of: &str) -> Licence {
    Licence {
        id: licence_id(id),
        account: name(of),
        groups: groups(&["orders"]),
        plan: "basic".to_owned(),
        starts_at: at(1),
        ends_at: None,
        suspended: false,
        seats: None,
        trial: false,
        document: None,
        quotas: [].into(),
        created_at: at(1),
    }
}

fn group(id: &str) -> Group {
    Group { id: group_id(id), title: String::new(), token_lifetime: None, created_at: at(1) }
}

fn signing_key(kid: &str, created: u64) -> SigningKey {
    SigningKey {
        kid: kid.to_owned(),
        algorithm: "RS256".to_owned(),
        private: Secret::new(kid.as_bytes().to_vec()),
        sealed_by: None,
        state: SigningState::Next,
        created_at: at(created),
        activates_at: at(created + 10),
        longest_token: Duration::from_millis(3_600_500),
        gone_at: None,
    }
}

/// Titles that a careless backend spoils.
const TITLES: &[&str] =
    &["", "Ünïcödé 漢字 🦀", "it's \"quoted\"; DROP TABLE accounts", "two\nlines\tand a nul \0.", " spaces "];

async fn changes(store: &SharedStore, since: u64) -> Vec<Change> {
    match store.changes_since(since).await.expect("the feed") {
        Changes::List(list, reached) => {
            assert_eq!(reached - since, list.len() as u64, "one version for each change");
            list
        }
        Changes::Lost => panic!("version {since} is lost"),
    }
}

async fn with_accounts(bench: &Bench, names: &[&str]) {
    for name in names {
        assert!(bench.store.insert_account(&account(name)).await.expect("an insert"));
    }
}
