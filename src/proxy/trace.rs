//! Traces (W3C Trace Context): a request that is part of one stays so, and any other begins one. The gateway adds no span of
//! its own, so it passes what it got unchanged (§3.2.2, §4.3).

use http::{HeaderMap, HeaderName};

/// W3C Trace Context §3.2.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// W3C Trace Context §3.3.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Whether a request is part of a trace: it has one `traceparent`, and that can be read (W3C Trace Context §3.2.2). What a
/// later version has after the fields known here is its own.
pub fn is_traced(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRACEPARENT).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let line = line.as_bytes();
    let is_hex = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |bytes: &[u8]| is_hex(bytes) && bytes.iter().any(|byte| *byte != b'0');
    let Some((known, later)) = line.split_at_checked(55) else { return false };
    let [version, trace, parent, flags] = [&known[..2], &known[3..35], &known[36..52], &known[53..]];
    let ends = later.is_empty() || (version != b"00" && later[0] == b'-');
    let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
    ends && dashes && is_hex(version) && version != b"ff" && is_id(trace) && is_id(parent) && is_hex(flags)
}

/// Begins a trace. It is marked as sampled: the request is in the gateway's log under this number, and most of who reads it
/// samples as its parent did, so that `00` would turn an upstream's own tracing off.
pub fn write_trace(text: &mut Vec<u8>, mut ids: [u8; 24]) {
    // All zeros is no id. It will not come, but nothing says so.
    for id in [0..16, 16..24] {
        if ids[id.clone()].iter().all(|byte| *byte == 0) {
            ids[id.start] = 1;
        }
    }
    let mut line = *b"00-................................-................-01";
    let (trace, parent) = ids.split_at(16);
    for (part, ids) in [(3..35, trace), (36..52, parent)] {
        for (digits, byte) in line[part].chunks_exact_mut(2).zip(ids) {
            digits.copy_from_slice(&[byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    text.extend_from_slice(&line);
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn reads(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(TRACEPARENT, HeaderValue::from_str(line).unwrap());
        }
        is_traced(&headers)
    }

    #[test]
    fn a_parent_of_this_version_or_a_later_one_is_read() {
        let later = format!("cc{}", &GOOD[2..]);
        for good in [GOOD, &GOOD.replace("-01", "-00"), &later, &format!("{later}-what-will-be")] {
            assert!(reads(&[good]), "{good}");
        }
    }

    #[test]
    fn what_is_no_parent_is_not() {
        let later = format!("cc{}", &GOOD[2..]);
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD[..54],
            &format!("{GOOD}0"),
            &format!("{GOOD}-more"),
            &format!("{later}0"),
            &format!("ff{}", &GOOD[2..]),
            &format!("0g{}", &GOOD[2..]),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &GOOD.replace("00f067aa0ba902b7", "0000000000000000"),
            &GOOD.replace("-01", "-0x"),
        ] {
            assert!(!reads(&[bad]), "{bad}");
        }
        assert!(!reads(&[]));
        assert!(!reads(&[GOOD, GOOD]), "two are none");
    }

    #[test]
    fn what_is_begun_can_be_read() {
        for ids in [[0; 24], [0xab; 24]] {
            let mut text = Vec::new();
            write_trace(&mut text, ids);
            assert!(reads(&[std::str::from_utf8(&text).unwrap()]), "{ids:?}");
        }
    }
}
