//! What is counted, and the histogram of waiting.

use std::time::Duration;

/// How many buckets the histogram has: one for each power of two from 1 ms to 32768 ms, and one for what took longer.
pub const BUCKETS: usize = 17;

/// The most milliseconds that a request of this bucket took; `None` in the last one, which has no bound.
pub const fn bound(bucket: usize) -> Option<u64> {
    if bucket + 1 < BUCKETS { Some(1 << bucket) } else { None }
}

/// How long requests took from their head to the head of their answer, by bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency(pub [u64; BUCKETS]);

impl Latency {
    /// The bucket of a duration: the first whose bound it does not exceed.
    pub fn bucket(duration: Duration) -> usize {
        let millis = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        match millis {
            0 | 1 => 0,
            millis => (u64::BITS - (millis - 1).leading_zeros()).min(BUCKETS as u32 - 1) as usize,
        }
    }

    /// Counts a request.
    pub fn observe(&mut self, duration: Duration) {
        self.0[Self::bucket(duration)] += 1;
    }

    /// The bucket that a share of all requests, from 0 to 1, did not exceed; `None` when there were none.
    pub fn percentile(&self, share: f64) -> Option<usize> {
        let all: u64 = self.0.iter().sum();
        if all == 0 {
            return None;
        }
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank"
        )]
        let rank = ((all as f64 * share).ceil() as u64).clamp(1, all);
        let mut seen = 0;
        self.0.iter().position(|count| {
            seen += count;
            seen >= rank
        })
    }
}

/// What is counted of one line, or of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests whose answer's head was ready.
    pub requests: u64,
    /// Bytes of requests' content that arrived here.
    pub bytes_in: u64,
    /// Bytes of answers' content that were handed to the client's connection.
    pub bytes_out: u64,
    /// How long they took.
    pub latency: Latency,
}

impl Counts {
    /// Adds others. What no longer fits stays at the most, which is beyond what a store can hold.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        for (count, more) in self.latency.0.iter_mut().zip(other.latency.0) {
            *count = count.saturating_add(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let of = |micros| Latency::bucket(Duration::from_micros(micros));
        assert_eq!((of(0), of(1), of(1000)), (0, 0, 0));
        assert_eq!((of(1001), of(2000), of(2001), of(4000)), (1, 1, 2, 2));
        assert_eq!((of(32_768_000), of(32_768_001), of(u64::MAX)), (15, 16, 16));
        for bucket in 0..BUCKETS - 1 {
            let most = Duration::from_millis(bound(bucket).unwrap());
            assert_eq!(Latency::bucket(most), bucket);
            assert_eq!(Latency::bucket(most + Duration::from_nanos(1)), bucket + 1);
        }
        assert_eq!(bound(BUCKETS - 1), None);
    }

    #[test]
    fn a_percentile_is_the_bucket_that_so_many_did_not_exceed() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentile(0.5), None);
        latency.0[0] = 98;
        latency.0[3] = 1;
        latency.0[16] = 1;
        let at = |share| latency.percentile(share);
        assert_eq!((at(0.5), at(0.98), at(0.99), at(1.0), at(0.0)), (Some(0), Some(0), Some(3), Some(16), Some(0)));
        assert_eq!(Latency([0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).percentile(0.01), Some(2));
    }
}
