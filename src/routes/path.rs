//! Path normalisation, once and before anything else looks at the path: what two readers could read differently is refused.

use std::borrow::Cow;
use std::fmt;

/// A path that is refused, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguous {
    /// It does not begin with a slash.
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    Encoding,
    /// An encoded slash or backslash, or a plain backslash.
    Slash,
    /// A segment `.` or `..`, encoded or not.
    DotSegment,
    /// An empty segment: `//`.
    EmptySegment,
    /// NUL or another control character, encoded or not.
    Control,
    /// A byte that may not stand in a path.
    Character,
    /// A `;`, where it is not allowed: some servers take what follows it in a segment for a parameter and not for the path,
    /// so that `/open/..;/closed` is `/closed` to them.
    Parameter,
}

impl fmt::Display for Ambiguous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "The path does not begin with a slash.",
            Self::Encoding => "The path has a percent sign without two hexadecimal digits.",
            Self::Slash => "The path has a backslash, or an encoded slash or backslash.",
            Self::DotSegment => "The path has a segment '.' or '..'.",
            Self::EmptySegment => "The path has an empty segment ('//').",
            Self::Control => "The path has a control character.",
            Self::Character => "The path has a character that must be percent-encoded.",
            Self::Parameter => "The path has a ';'. Write %3B if it is meant as such.",
        })
    }
}

/// The one spelling of a path that routes are matched against and an upstream is sent: unreserved characters decoded, other
/// encodings in capitals (RFC 3986 §6.2.2).
///
/// # Errors
/// [`Ambiguous`], for what a server behind us might understand differently.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, Ambiguous> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(Ambiguous::NotAbsolute);
    }
    if is_plain(bytes) {
        return Ok(Cow::Borrowed(path));
    }
    let mut decoded: Option<String> = None;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'%' {
            let spelled = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
            let spelled = spelled.filter(|hex| hex.bytes().all(|c| c.is_ascii_hexdigit()));
            let value = spelled.and_then(|hex| u8::from_str_radix(hex, 16).ok()).ok_or(Ambiguous::Encoding)?;
            let out = decoded.get_or_insert_with(|| path[..at].to_owned());
            match value {
                b'/' | b'\\' => return Err(Ambiguous::Slash),
                0..=0x1f | 0x7f => return Err(Ambiguous::Control),
                _ if is_unreserved(value) => out.push(char::from(value)),
                _ => {
                    out.push('%');
                    out.push_str(&spelled.unwrap_or_default().to_ascii_uppercase());
                }
            }
            at += 3;
            continue;
        }
        match byte {
            b'\\' => return Err(Ambiguous::Slash),
            0..=0x1f | 0x7f => return Err(Ambiguous::Control),
            _ if is_unreserved(byte) || b"/!$&'()*+,;=:@".contains(&byte) => {}
            _ => return Err(Ambiguous::Character),
        }
        if let Some(out) = &mut decoded {
            out.push(char::from(byte));
        }
        at += 1;
    }
    let normal = decoded.map_or(Cow::Borrowed(path), Cow::Owned);
    let mut segments = normal[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => return Err(Ambiguous::DotSegment),
            // A slash at the very end is fine.
            "" if segments.peek().is_some() => return Err(Ambiguous::EmptySegment),
            _ => {}
        }
    }
    Ok(normal)
}

/// Whether a path is what nearly all are: nothing but unreserved characters, no empty segment and none that begins with a
/// dot. Such a path is normal as it is.
fn is_plain(bytes: &[u8]) -> bool {
    let mut before = 0;
    for &byte in bytes {
        let good = match byte {
            b'/' | b'.' => before != b'/',
            _ => is_unreserved(byte),
        };
        if !good {
            return false;
        }
        before = byte;
    }
    true
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_path_has_one_spelling() {
        for (path, normal) in [
            ("/", "/"),
            ("/demo/time", "/demo/time"),
            ("/demo/", "/demo/"),
            ("/%64emo/%7euser", "/demo/~user"),
            ("/caf%c3%a9/a%20b", "/caf%C3%A9/a%20b"),
            ("/a..b/...", "/a..b/..."),
            ("/a;v=1/@b:c,d", "/a;v=1/@b:c,d"),
        ] {
            assert_eq!(normalise(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn what_could_be_read_differently_is_refused() {
        for (path, why) in [
            ("", Ambiguous::NotAbsolute),
            ("demo", Ambiguous::NotAbsolute),
            ("*", Ambiguous::NotAbsolute),
            ("/a/../b", Ambiguous::DotSegment),
            ("/a/%2e%2E/b", Ambiguous::DotSegment),
            ("/a/.%2e", Ambiguous::DotSegment),
            ("/./a", Ambiguous::DotSegment),
            ("/a%2fb", Ambiguous::Slash),
            ("/a%5cb", Ambiguous::Slash),
            ("/a\\b", Ambiguous::Slash),
            ("/a%00", Ambiguous::Control),
            ("/a%7f", Ambiguous::Control),
            ("//a", Ambiguous::EmptySegment),
            ("/a//b", Ambiguous::EmptySegment),
            ("/a//", Ambiguous::EmptySegment),
            ("/a%", Ambiguous::Encoding),
            ("/a%zz", Ambiguous::Encoding),
            ("/a%+1", Ambiguous::Encoding),
            ("/a%2", Ambiguous::Encoding),
            ("/ä", Ambiguous::Character),
            ("/a\"b", Ambiguous::Character),
        ] {
            assert_eq!(normalise(path), Err(why), "{path}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(path in "/[ -~äß]{0,40}") {
            if let Ok(normal) = normalise(&path) {
                prop_assert_eq!(normalise(&normal).expect("normal already"), normal.clone());
                prop_assert!(!normal.split('/').any(|segment| segment == ".."));
            }
        }

        #[test]
        fn a_plain_path_is_one_that_the_full_check_lets_through_unchanged(path in "/[a-c./~%]{0,12}") {
            if is_plain(path.as_bytes()) {
                prop_assert!(!path.contains("//") && !path.split('/').any(|segment| segment == "." || segment == ".."));
                prop_assert!(!path.contains('%'));
            }
        }

        #[test]
        fn normalising_never_panics(path in any::<String>()) {
            let _ = normalise(&path);
        }
    }
}
