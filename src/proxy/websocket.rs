//! As much of WebSocket (RFC 6455) as a gateway needs that ends a connection decently: where a frame ends, how a Close frame
//! is written, and what the opening handshake computes. Payloads are not looked at.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::random;

/// Close codes (RFC 6455 §7.4.1; 4000 to 4999 are for applications).
pub mod code {
    /// An endpoint goes away.
    pub const GOING_AWAY: u16 = 1001;
    /// The token that opened the connection is no longer good. Ours.
    pub const TOKEN_ENDED: u16 = 4401;
}

/// The most bytes that a frame's header has: 2, an extended length of 8, and a mask of 4.
const LONGEST_HEADER: usize = 14;

/// Follows the frames of one direction (RFC 6455 §5.2) by their headers alone, over any cuts between reads.
#[derive(Debug, Clone, Default)]
pub struct Frames {
    /// The header that has begun, and how much of it is there; 0 at a border, and while content goes by.
    header: [u8; LONGEST_HEADER],
    have: usize,
    /// Bytes of the current frame's content that are still to come.
    remaining: u64,
    /// The current frame is a Close.
    is_close: bool,
    closed: bool,
}

impl Frames {
    /// At the beginning, which is a border.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the last byte was the last one of a frame, or none came yet.
    pub fn at_border(&self) -> bool {
        self.have == 0 && self.remaining == 0
    }

    /// Bytes until the next border, as far as they are known: of a header, at least those that it is known to have.
    pub fn until_border(&self) -> u64 {
        if self.have > 0 { (header_length(&self.header[..self.have]) - self.have) as u64 } else { self.remaining }
    }

    /// Whether a whole Close frame went by: after it there is nothing more to say in this direction (§5.5.1).
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Follows all of `bytes`.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.feed_to_border(bytes);
            bytes = &bytes[taken..];
        }
    }

    /// Follows `bytes` as far as the end of the current frame (at a border: of the next one), and says how many that were:
    /// all of them where the frame goes on after them.
    pub fn feed_to_border(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while self.remaining == 0 && at < bytes.len() {
            // The length of a header is known from its second byte on; before that it has at least two.
            self.header[self.have] = bytes[at];
            self.have += 1;
            at += 1;
            if self.have == header_length(&self.header[..self.have]) {
                self.remaining = content_length(&self.header);
                self.is_close = self.header[0] & 0x0f == 0x8;
                self.have = 0;
                if self.remaining == 0 {
                    self.closed |= self.is_close;
                    return at;
                }
            }
        }
        let content = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len() - at);
        if content > 0 {
            self.remaining -= content as u64;
            self.closed |= self.is_close && self.remaining == 0;
        }
        at + content
    }
}

/// How long a header is, judged by what there is of it.
fn header_length(header: &[u8]) -> usize {
    let Some(second) = header.get(1) else { return 2 };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + extended + if second & 0x80 == 0 { 0 } else { 4 }
}

fn content_length(header: &[u8; LONGEST_HEADER]) -> u64 {
    let [_, second, a, b, c, d, e, f, g, h, ..] = *header;
    match second & 0x7f {
        126 => u64::from(u16::from_be_bytes([a, b])),
        127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        short => u64::from(short),
    }
}

/// A Close frame (RFC 6455 §5.5.1). The reason is cut to the 123 bytes that a control frame has room for. What goes to a
/// server is masked with a fresh, unpredictable key (§5.3); what goes to a client is not.
pub fn close_frame(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(123)];
    let length = (2 + reason.len()) as u8;
    let mut frame = Vec::with_capacity(6 + usize::from(length));
    frame.extend_from_slice(&[0x88, length | if mask.is_some() { 0x80 } else { 0 }]);
    frame.extend_from_slice(mask.as_ref().map_or(&[], <[u8; 4]>::as_slice));
    let content = frame.len();
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(reason);
    if let Some(mask) = mask {
        for (byte, key) in frame[content..].iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
    }
    frame
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 §4.2.2). SHA-1 because the standard says so; nothing secret
/// depends on it.
pub fn accept(key: &[u8]) -> HeaderValue {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    base64_value(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()).as_ref())
}

/// A `Sec-WebSocket-Key` (RFC 6455 §4.1) for a client that opened its connection by HTTP/2, which has none (RFC 8441 §5).
pub fn key() -> HeaderValue {
    base64_value(&random::bytes::<16>())
}

fn base64_value(bytes: &[u8]) -> HeaderValue {
    HeaderValue::try_from(STANDARD.encode(bytes)).expect("base64 is visible ASCII")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame of `length` bytes of content, which are all `0xff` so that they look like no header of their own length.
    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let mask = if masked { 0x80 } else { 0 };
        match length {
            0..126 => frame.push(length as u8 | mask),
            126..65536 => {
                frame.push(126 | mask);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(127 | mask);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend_from_slice(&[1, 2, 3, 4]);
        }
        frame.resize(frame.len() + length, 0xff);
        frame
    }

    #[test]
    fn a_border_is_after_the_last_byte_of_a_frame_and_nowhere_else() {
        for length in [0, 1, 125, 126, 127, 300, 65535, 65536, 70_000] {
            for masked in [false, true] {
                let frame = frame(2, length, masked);
                let mut frames = Frames::new();
                assert!(frames.at_border());
                for (n, byte) in frame.iter().enumerate() {
                    frames.feed(&[*byte]);
                    assert_eq!(frames.at_border(), n + 1 == frame.len(), "byte {n} of {}", frame.len());
                    assert!(frames.until_border() <= (frame.len() - n - 1) as u64);
                }
                assert_eq!(frames.until_border(), 0);
            }
        }
    }

    #[test]
    fn the_rest_of_a_frame_is_known_once_its_header_is_there() {
        let mut frames = Frames::new();
        frames.feed(&[0x82]);
        assert_eq!(frames.until_border(), 1);
        frames.feed(&[127]);
        assert_eq!(frames.until_border(), 8);
        frames.feed(&1_000_000_u64.to_be_bytes());
        assert_eq!(frames.until_border(), 1_000_000);
        frames.feed(&[0; 10]);
        assert_eq!(frames.until_border(), 999_990);
    }

    #[test]
    fn feeding_to_the_border_leaves_the_next_frame_alone() {
        let mut bytes = frame(1, 5, true);
        let first = bytes.len();
        bytes.extend(frame(1, 3, true));
        let mut frames = Frames::new();
        frames.feed(&bytes[..2]);
        assert_eq!(frames.feed_to_border(&bytes[2..]), first - 2);
        assert!(frames.at_border());
        assert_eq!(frames.feed_to_border(&bytes[first..first + 4]), 4);
        assert!(!frames.at_border());
    }

    #[test]
    fn a_length_that_no_frame_may_have_is_no_panic() {
        let mut frames = Frames::new();
        frames.feed(&[0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 7]);
        assert_eq!(frames.until_border(), u64::MAX - 1);
    }

    #[test]
    fn a_close_counts_when_it_is_whole() {
        let close = close_frame(1000, "bye", Some([9, 8, 7, 6]));
        let mut frames = Frames::new();
        frames.feed(&frame(1, 8, true));
        frames.feed(&close[..close.len() - 1]);
        assert!(!frames.closed());
        frames.feed(&close[close.len() - 1..]);
        assert!(frames.closed() && frames.at_border());
        let mut frames = Frames::new();
        frames.feed(&[0x88, 0]);
        assert!(frames.closed(), "one without content too");
    }

    #[test]
    fn a_close_frame_is_as_the_standard_writes_it() {
        assert_eq!(close_frame(4401, "token expired", None), b"\x88\x0f\x11\x31token expired");
        assert_eq!(close_frame(1001, "", Some([1, 2, 3, 4])), [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xe9 ^ 2]);
        let long = close_frame(1000, &"ä".repeat(100), None);
        assert_eq!(long.len(), 2 + 2 + 122, "cut between two characters");
        assert_eq!(long[1], 124);
    }

    /// RFC 6455 §1.3.
    #[test]
    fn the_answer_to_a_key_is_that_of_the_standards_example() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_sixteen_fresh_bytes() {
        assert_eq!(STANDARD.decode(key().as_bytes()).unwrap().len(), 16);
        assert_ne!(key(), key());
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            shapes in prop::collection::vec((0_u8..11, prop_oneof![0_usize..130, 120_usize..400], any::<bool>()), 1..5),
            cuts in prop::collection::vec(1_usize..40, 1..60),
        ) {
            let mut stream = Vec::new();
            let mut borders = vec![0];
            for (opcode, length, masked) in shapes {
                stream.extend(frame(opcode, length, masked));
                borders.push(stream.len());
            }
            let mut frames = Frames::new();
            let mut at = 0;
            for cut in cuts.into_iter().cycle() {
                let next = (at + cut).min(stream.len());
                frames.feed(&stream[at..next]);
                at = next;
                prop_assert_eq!(frames.at_border(), borders.contains(&at), "at {}", at);
                if at == stream.len() { break }
            }
        }

        #[test]
        fn any_bytes_are_followed_without_a_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut frames = Frames::new();
            for chunk in chunks {
                frames.feed(&chunk);
                let _ = frames.until_border();
            }
        }
    }
}
