//! Which notice of a licence is due.

use std::time::Duration;

use super::Occasion;
use crate::clock::Timestamp;
use crate::licences::Licence;

/// How long after its end a licence's last notice is still sent, by gateways that were all away.
pub(super) const LATE: Duration = Duration::from_secs(7 * 86_400);

/// The notice of `licence` that is due at `now`, with notices so long before the end as `before_end` says: the nearest one to
/// the end. Those before it were sent or have been overtaken; what should have been said before the licence was granted is
/// not said.
pub fn due(licence: &Licence, before_end: &[Duration], now: Timestamp) -> Option<Occasion> {
    let ends_at = licence.ends_at?;
    if ends_at + LATE <= now {
        return None;
    }
    let ahead = before_end.iter().copied().chain([Duration::ZERO]).filter(|ahead| ends_at - *ahead <= now).min()?;
    (ends_at - ahead > licence.created_at).then_some(Occasion { licence: licence.id, ends_at, ahead })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LicenceId;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn the_nearest_notice_to_the_end_is_due() {
        let start = Timestamp::from_secs(1_800_000_000);
        let licence = Licence {
            id: LicenceId::random(),
            account: "acme".parse().expect("a name"),
            groups: ["orders".parse().expect("a group")].into(),
            plan: "standard".into(),
            starts_at: start,
            ends_at: Some(start + 10 * DAY),
            suspended: false,
            seats: None,
            trial: false,
            document: None,
            quotas: [].into(),
            created_at: start,
        };
        let steps = [30 * DAY, 7 * DAY, DAY];
        let ahead = |licence: &Licence, after: Duration| due(licence, &steps, start + after).map(|due| due.ahead);
        let moment = Duration::from_millis(1);
        assert_eq!(ahead(&licence, Duration::ZERO), None, "30 days ahead of its end it was not there");
        assert_eq!(ahead(&licence, 3 * DAY - moment), None);
        assert_eq!(ahead(&licence, 3 * DAY), Some(7 * DAY));
        assert_eq!(ahead(&licence, 9 * DAY - moment), Some(7 * DAY));
        assert_eq!(ahead(&licence, 9 * DAY), Some(DAY));
        assert_eq!(ahead(&licence, 10 * DAY), Some(Duration::ZERO));
        assert_eq!(ahead(&licence, 17 * DAY - moment), Some(Duration::ZERO));
        assert_eq!(ahead(&licence, 17 * DAY), None);
        assert_eq!(due(&licence, &[], start + 9 * DAY), None);
        assert_eq!(ahead(&Licence { ends_at: None, ..licence }, 9 * DAY), None);
    }
}
