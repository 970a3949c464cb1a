//! Seats: how many keys an account may hold. Pure rules; the store asks them inside the transaction that takes a seat.
//!
//! The seats of an account are the sum over its licences in force, and without limit as soon as one of these has none. When
//! none is in force, those that are pending or suspended say it, so that nobody stocks up on keys beforehand. An account
//! without any licence has no limit: its keys reach nothing.

use super::Licence;
use crate::clock::Timestamp;
use crate::ids::LicenceId;

/// The seats of one account at one moment, as a store sees them inside a transaction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seating {
    /// All licences of the account.
    pub licences: Vec<Licence>,
    /// How many of its keys hold a seat.
    pub held: u64,
}

/// How many seats there are, and by which licences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The sum.
    pub seats: u64,
    /// The licences that are summed, by id.
    pub licences: Vec<LicenceId>,
}

/// The limit that these licences of one account set at `now`; `None` is no limit.
pub fn limit(licences: &[Licence], now: Timestamp) -> Option<Limit> {
    let live: Vec<&Licence> = licences.iter().filter(|licence| licence.is_live(now)).collect();
    let counted = if live.is_empty() {
        licences.iter().filter(|licence| licence.ends_at.is_none_or(|end| now < end)).collect()
    } else {
        live
    };
    if counted.is_empty() {
        return None;
    }
    let seats = counted.iter().try_fold(0u64, |sum, licence| Some(sum.saturating_add(u64::from(licence.seats?))))?;
    let mut licences: Vec<LicenceId> = counted.into_iter().map(|licence| licence.id).collect();
    licences.sort_unstable();
    Some(Limit { seats, licences })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1000);

    fn licence(seats: Option<u32>, starts: u64, ends: Option<u64>, suspended: bool) -> Licence {
        Licence {
            id: LicenceId::random(),
            account: "acme".parse().expect("a name"),
            groups: ["orders".parse().expect("a group")].into(),
            plan: "standard".into(),
            starts_at: Timestamp::from_secs(starts),
            ends_at: ends.map(Timestamp::from_secs),
            suspended,
            seats,
            trial: false,
            document: None,
            quotas: [].into(),
            created_at: Timestamp::from_secs(1),
        }
    }

    fn seats(licences: &[Licence]) -> Option<u64> {
        limit(licences, NOW).map(|limit| limit.seats)
    }

    #[test]
    fn seats_are_the_sum_over_the_licences_in_force() {
        let (two, three) = (licence(Some(2), 0, None, false), licence(Some(3), 0, Some(1001), false));
        let ended = licence(Some(100), 0, Some(1000), false);
        let suspended = licence(None, 0, None, true);
        assert_eq!(seats(&[two.clone(), three.clone(), ended.clone(), suspended]), Some(5));
        assert_eq!(seats(&[two, three, licence(None, 0, None, false)]), None, "one without limit is enough");
        assert_eq!(seats(&[licence(Some(0), 0, None, false)]), Some(0));
    }

    #[test]
    fn with_none_in_force_those_to_come_count_and_without_any_there_is_no_limit() {
        let pending = licence(Some(2), 2000, None, false);
        let suspended = licence(Some(3), 0, None, true);
        let ended = licence(Some(100), 0, Some(1000), false);
        assert_eq!(seats(&[pending.clone(), suspended, ended.clone()]), Some(5));
        assert_eq!(seats(&[ended]), None);
        assert_eq!(seats(&[]), None);
        assert_eq!(seats(&[pending, licence(Some(1), 0, None, false)]), Some(1), "one that is in force says it alone");
    }
}
