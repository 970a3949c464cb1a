//! Path patterns: what a route's `path` may say, and which of two patterns is the more specific.

use std::fmt;
use std::str::FromStr;

/// One segment of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// This very text.
    Literal(Box<str>),
    /// `{name}`: any one segment that is not empty.
    Parameter(Box<str>),
}

/// A path pattern: `/orders` is that path alone, `/orders/*` is that path and all below it, and `{name}` stands for one whole
/// segment, as in `/users/{id}/orders`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    segments: Box<[Segment]>,
    and_below: bool,
}

/// Why a text is no pattern; `Display` says it in a way that follows the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidPattern {
    /// It does not begin with a slash.
    NotAbsolute,
    /// It is longer than 1024 characters.
    TooLong,
    /// It ends with a slash.
    TrailingSlash,
    /// A `*` that is not its last segment.
    Star,
    /// A query or a fragment.
    Query,
    /// A percent sign or a backslash.
    Encoded,
    /// A character that no path has.
    Character,
    /// `.`, `..` or an empty segment.
    NotNormal,
    /// A brace that is not around a whole segment, or a name that is none.
    Parameter,
    /// One name for two parameters.
    RepeatedParameter,
}

impl InvalidPattern {
    /// What to write in its place.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::TrailingSlash => "write it without, or with '/*' for all that is below it",
            Self::Query => "write the path alone",
            Self::Encoded => "write the path decoded: requests are compared so",
            Self::Character => "write letters, digits and -._~!$&'()+,;=:@",
            Self::NotNormal => "write it without '.', '..' and '//': requests are compared so",
            Self::Parameter => "write {name} for one whole segment, of letters, digits and '_'",
            Self::RepeatedParameter => "give each parameter a name of its own",
            Self::NotAbsolute | Self::TooLong | Self::Star => {
                "write a path that begins with '/'; '/*' at its end means that path and all below it"
            }
        }
    }
}

impl fmt::Display for InvalidPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "does not begin with '/'",
            Self::TooLong => "is longer than 1024 characters",
            Self::TrailingSlash => "ends with '/'",
            Self::Star => "has a '*' that is not its last segment",
            Self::Query => "has a query or fragment",
            Self::Encoded => "has an encoded character or a backslash",
            Self::Character => "has a character that no path has",
            Self::NotNormal => "is not in normal form",
            Self::Parameter => "has a brace that is not around a whole segment's name",
            Self::RepeatedParameter => "has one name for two parameters",
        })
    }
}

impl std::error::Error for InvalidPattern {}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        if !text.starts_with('/') {
            return Err(InvalidPattern::NotAbsolute);
        }
        if text.len() > 1024 {
            return Err(InvalidPattern::TooLong);
        }
        if text.len() > 1 && text.ends_with('/') {
            return Err(InvalidPattern::TrailingSlash);
        }
        let (stem, and_below) = text.strip_suffix("/*").map_or((text, false), |stem| (stem, true));
        if stem.contains('*') {
            return Err(InvalidPattern::Star);
        }
        if stem.contains(['?', '#']) {
            return Err(InvalidPattern::Query);
        }
        if stem.contains(['%', '\\']) {
            return Err(InvalidPattern::Encoded);
        }
        if !stem.bytes().all(|c| c.is_ascii_graphic() && !b"\"<>^`|[]".contains(&c)) {
            return Err(InvalidPattern::Character);
        }
        let mut segments: Vec<Segment> = Vec::new();
        for segment in stem.split('/').skip(1).filter(|_| text != "/") {
            if matches!(segment, "" | "." | "..") {
                return Err(InvalidPattern::NotNormal);
            }
            let segment = match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name) if !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') => {
                    Segment::Parameter(name.into())
                }
                None if !segment.contains(['{', '}']) => Segment::Literal(segment.into()),
                _ => return Err(InvalidPattern::Parameter),
            };
            if matches!(segment, Segment::Parameter(_)) && segments.contains(&segment) {
                return Err(InvalidPattern::RepeatedParameter);
            }
            segments.push(segment);
        }
        Ok(Self { segments: segments.into(), and_below })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Parameter(name) => write!(f, "/{{{name}}}")?,
            }
        }
        match (self.and_below, self.segments.is_empty()) {
            (true, _) => f.write_str("/*"),
            (false, true) => f.write_str("/"),
            (false, false) => Ok(()),
        }
    }
}

impl Pattern {
    /// Its segments, without the `*` at the end.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether all that is below belongs to it too.
    pub fn and_below(&self) -> bool {
        self.and_below
    }

    /// The pattern without the names of its parameters: two that are alike in this match the very same paths.
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        for segment in &self.segments {
            shape.push('/');
            shape.push_str(match segment {
                Segment::Literal(text) => text,
                Segment::Parameter(_) => "{}",
            });
        }
        shape.push_str(if self.and_below { "/*" } else { "" });
        shape
    }

    /// Whether both match the very same paths: they differ in the names of parameters at most.
    pub fn is_same(&self, other: &Self) -> bool {
        self.and_below == other.and_below
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Literal(a), Segment::Literal(b)) => a == b,
                (Segment::Parameter(_), Segment::Parameter(_)) => true,
                _ => false,
            })
    }

    /// Whether every path that `other` matches is matched by this one too.
    pub fn covers(&self, other: &Self) -> bool {
        let enough = match self.and_below {
            true => other.segments.len() >= self.segments.len(),
            false => other.segments.len() == self.segments.len() && !other.and_below,
        };
        enough
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Literal(a), Segment::Literal(b)) => a == b,
                (Segment::Parameter(_), _) => true,
                (Segment::Literal(_), Segment::Parameter(_)) => false,
            })
    }

    /// The literal text that every path of it begins with, up to the first parameter: what `strip_prefix` may take away.
    pub fn literal_prefix(&self) -> String {
        let literals = self.segments.iter().map_while(|segment| match segment {
            Segment::Literal(text) => Some(&**text),
            Segment::Parameter(_) => None,
        });
        literals.fold(String::new(), |path, segment| path + "/" + segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect(text)
    }

    #[test]
    fn a_pattern_is_in_normal_form_and_shows_as_written() {
        for good in ["/orders", "/orders/*", "/*", "/", "/a/b-c_d.e~f", "/users/{id}", "/users/{id}/orders/*", "/{x}"] {
            assert_eq!(pattern(good).to_string(), good);
        }
        for (bad, why) in [
            ("", InvalidPattern::NotAbsolute),
            ("orders", InvalidPattern::NotAbsolute),
            ("/a/", InvalidPattern::TrailingSlash),
            ("/a*", InvalidPattern::Star),
            ("/*/b", InvalidPattern::Star),
            ("/a//b", InvalidPattern::NotNormal),
            ("//*", InvalidPattern::NotNormal),
            ("/a/../b", InvalidPattern::NotNormal),
            ("/./a", InvalidPattern::NotNormal),
            ("/a?b", InvalidPattern::Query),
            ("/a#b", InvalidPattern::Query),
            ("/a%20b", InvalidPattern::Encoded),
            ("/a\\b", InvalidPattern::Encoded),
            ("/a b", InvalidPattern::Character),
            ("/ä", InvalidPattern::Character),
            ("/a{b}", InvalidPattern::Parameter),
            ("/{}", InvalidPattern::Parameter),
            ("/{a-b}", InvalidPattern::Parameter),
            ("/{a", InvalidPattern::Parameter),
            ("/{a}/{a}", InvalidPattern::RepeatedParameter),
        ] {
            assert_eq!(bad.parse::<Pattern>(), Err(why), "{bad}");
        }
        assert_eq!(format!("/{}", "a".repeat(1024)).parse::<Pattern>(), Err(InvalidPattern::TooLong));
    }

    #[test]
    fn a_pattern_covers_what_it_matches_all_of() {
        for (wide, narrow) in
            [("/*", "/"), ("/*", "/a/{b}"), ("/a/*", "/a"), ("/a/*", "/a/b/*"), ("/{x}", "/a"), ("/{x}/*", "/a/b")]
        {
            assert!(pattern(wide).covers(&pattern(narrow)), "{wide} {narrow}");
        }
        for (one, other) in [("/a", "/a/*"), ("/a", "/{x}"), ("/a/*", "/ab"), ("/{x}", "/"), ("/{x}", "/a/b")] {
            assert!(!pattern(one).covers(&pattern(other)), "{one} {other}");
        }
        assert!(pattern("/{a}/b").is_same(&pattern("/{x}/b")));
        assert!(!pattern("/{a}/b").is_same(&pattern("/a/b")));
        assert!(!pattern("/a").is_same(&pattern("/a/*")));
        assert_eq!(pattern("/a/b/{c}/d").literal_prefix(), "/a/b");
    }
}
