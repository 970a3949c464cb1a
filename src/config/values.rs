//! The values of settings: each reader turns what was given into its type, or says what was expected with an example.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

use super::suggest;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// A value as it was given: a TOML value from the file, or text from the environment, where everything is text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Given<'a> {
    Toml(&'a DeValue<'a>),
    Text(&'a str),
}

/// Why a value will not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What it is, or is not.
    pub problem: String,
    /// What to write in its place.
    pub remedy: String,
    /// A value that would do, in TOML.
    pub example: &'static str,
}

/// `Ok(value)`, or why not.
pub(super) type Read<T> = Result<T, Wrong>;

impl Given<'_> {
    /// The value as its writer would recognise it, in one line.
    pub fn show(&self) -> String {
        match self {
            Self::Text(text) => quote(text),
            Self::Toml(DeValue::String(text)) => quote(text),
            Self::Toml(DeValue::Integer(number)) => number.to_string(),
            Self::Toml(DeValue::Float(number)) => number.to_string(),
            Self::Toml(DeValue::Boolean(value)) => value.to_string(),
            Self::Toml(DeValue::Datetime(at)) => at.to_string(),
            Self::Toml(DeValue::Array(_)) => "a list".into(),
            Self::Toml(DeValue::Table(_)) => "a section".into(),
        }
    }

    /// The value as text, when it is text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Toml(value) => value.as_str(),
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Self::Text(text) => text.replace('_', "").parse().ok(),
            Self::Toml(value) => {
                let number = value.as_integer()?;
                i128::from_str_radix(number.as_str(), number.radix()).ok()
            }
        }
    }

    /// The fault of a value that is not `noun`.
    pub fn is_not(&self, noun: &str, remedy: impl Into<String>, example: &'static str) -> Wrong {
        Wrong { problem: format!("{} is not {noun}", self.show()), remedy: remedy.into(), example }
    }

    /// The fault of a value that breaks a rule.
    pub fn is(&self, what: impl Display, remedy: impl Into<String>, example: &'static str) -> Wrong {
        Wrong { problem: format!("{} {what}", self.show()), remedy: remedy.into(), example }
    }
}

fn quote(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{:?}", format!("{}…", &text[..cut])),
        None => format!("{text:?}"),
    }
}

/// Text without control characters, of so many characters.
pub(super) fn text(length: RangeInclusive<usize>, example: &'static str) -> impl Fn(Given) -> Read<String> {
    move |given| {
        let (least, most) = (*length.start(), *length.end());
        let remedy = format!("write {least} to {most} characters in one line");
        match given.text() {
            None => Err(given.is_not("text", remedy, example)),
            Some(text) if text.chars().any(char::is_control) => {
                Err(given.is("has control characters", remedy, example))
            }
            Some(text) if !length.contains(&text.chars().count()) => {
                Err(given.is(format!("has {} characters", text.chars().count()), remedy, example))
            }
            Some(text) if !text.is_empty() && text.trim().is_empty() => Err(given.is("is blank", remedy, example)),
            Some(text) => Ok(text.to_owned()),
        }
    }
}

/// A value whose type knows its own rule.
pub(super) fn parsed<T>(noun: &'static str, example: &'static str) -> impl Fn(Given) -> Read<T>
where
    T: FromStr,
    T::Err: Display,
{
    move |given| {
        let Some(text) = given.text() else { return Err(given.is_not(noun, "write it as text", example)) };
        text.parse().map_err(|rule: T::Err| given.is_not(noun, rule.to_string(), example))
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(words: &'static [(&'static str, T)], example: &'static str) -> impl Fn(Given) -> Read<T> {
    move |given| {
        if let Some((_, value)) = words.iter().find(|(word, _)| given.text() == Some(word)) {
            return Ok(*value);
        }
        let close = given.text().and_then(|text| suggest::closest(text, words.iter().map(|(word, _)| *word)));
        let remedy = match close {
            Some(word) => format!("did you mean {word:?}?"),
            None => format!("write {}", alternatives(words.iter().map(|(word, _)| format!("{word:?}")))),
        };
        Err(given.is_not("known here", remedy, example))
    }
}

/// One of a few numbers.
pub(super) fn one_of_numbers(numbers: &'static [u16], example: &'static str) -> impl Fn(Given) -> Read<u16> {
    move |given| {
        let number = given.integer().and_then(|number| u16::try_from(number).ok());
        number.filter(|number| numbers.contains(number)).ok_or_else(|| {
            let remedy = format!("write {}", alternatives(numbers.iter().map(u16::to_string)));
            given.is_not("possible here", remedy, example)
        })
    }
}

/// `a, b or c`
pub(super) fn alternatives(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    match words.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => words.concat(),
    }
}

/// `true` or `false`.
pub(super) fn boolean(given: Given) -> Read<bool> {
    match given {
        Given::Toml(DeValue::Boolean(value)) => Ok(*value),
        Given::Text("true") => Ok(true),
        Given::Text("false") => Ok(false),
        _ => Err(given.is_not("true or false", "write true or false, without quotes", "true")),
    }
}

/// A whole number within bounds.
pub(super) fn number<T>(range: RangeInclusive<T>, example: &'static str) -> impl Fn(Given) -> Read<T>
where
    T: TryFrom<i128> + PartialOrd + Copy + Display,
{
    move |given| {
        let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
        let Some(number) = given.integer() else { return Err(given.is_not("a whole number", remedy, example)) };
        T::try_from(number)
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| given.is("is out of range", remedy, example))
    }
}

/// A time: a whole number and its unit.
pub(super) fn duration(range: RangeInclusive<Duration>, example: &'static str) -> impl Fn(Given) -> Read<Duration> {
    move |given| {
        let Some(time) = given.text().and_then(parse_duration) else {
            return Err(given.is_not("a duration", "write a whole number and ms, s, m, h or d", example));
        };
        if range.contains(&time) {
            return Ok(time);
        }
        let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
        Err(given.is(
            if time < *range.start() { "is too short" } else { "is too long" },
            format!("write {least} to {most}"),
            example,
        ))
    }
}

/// A duration that `0` turns off, with a unit or without.
pub(super) fn or_zero(read: impl Fn(Given) -> Read<Duration>) -> impl Fn(Given) -> Read<Duration> {
    move |given| {
        let by_text = |text| text == "0" || parse_duration(text) == Some(Duration::ZERO);
        let is_zero = given.integer() == Some(0) || given.text().is_some_and(by_text);
        if is_zero {
            Ok(Duration::ZERO)
        } else {
            read(given).map_err(|wrong| Wrong { remedy: wrong.remedy + ", or 0 for never", ..wrong })
        }
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(digits);
    let count: u64 = count.parse().ok()?;
    let secs = match unit {
        "ms" => return Some(Duration::from_millis(count)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(count.checked_mul(secs)?))
}

fn show_duration(time: Duration) -> String {
    let millis = time.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if millis.is_multiple_of(size) && (millis > 0 || unit == "s") {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// A number of bytes: plain, or with KiB, MiB or GiB.
pub(super) fn size(range: RangeInclusive<usize>, example: &'static str) -> impl Fn(Given) -> Read<usize> {
    move |given| {
        let plain = given.integer().and_then(|number| usize::try_from(number).ok());
        let Some(bytes) = plain.or_else(|| given.text().and_then(parse_size)) else {
            return Err(given.is_not(
                "a size",
                "write a number of bytes, or a whole number and KiB, MiB or GiB",
                example,
            ));
        };
        if range.contains(&bytes) {
            return Ok(bytes);
        }
        let (least, most) = (show_size(*range.start()), show_size(*range.end()));
        Err(given.is(
            if bytes < *range.start() { "is too small" } else { "is too large" },
            format!("write {least} to {most}"),
            example,
        ))
    }
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(digits);
    let factor = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    count.parse::<usize>().ok()?.checked_mul(factor)
}

fn show_size(bytes: usize) -> String {
    for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes.is_multiple_of(size) && bytes > 0 {
            return format!("{}{unit}", bytes / size);
        }
    }
    bytes.to_string()
}

/// A file or folder. Whether it exists is for whoever opens it to say.
pub(super) fn path(example: &'static str) -> impl Fn(Given) -> Read<PathBuf> {
    move |given| match given.text() {
        // A key pasted in place of its path must not be repeated in a message.
        Some(text) if text.contains("-----BEGIN") => Err(Wrong {
            problem: "this is the content of a PEM file".into(),
            remedy: "put it into a file and write the file's path".into(),
            example,
        }),
        Some("") => Err(given.is_not("a path", "write the path of a file or folder", example)),
        Some(text) if text.chars().any(char::is_control) => {
            Err(given.is("has control characters", "write the path of a file or folder", example))
        }
        Some(text) => Ok(text.into()),
        None => Err(given.is_not("a path", "write the path of a file or folder", example)),
    }
}

/// An IP address and a port.
pub(super) fn address(example: &'static str) -> impl Fn(Given) -> Read<SocketAddr> {
    move |given| {
        given.text().and_then(|text| text.parse().ok()).ok_or_else(|| {
            given.is_not("an address to listen on", "write an IP address, ':' and a port (IPv6 in brackets)", example)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a reader says of text.
    pub(in crate::config) fn read<T>(reader: impl Fn(Given) -> Read<T>, text: &str) -> Result<T, String> {
        reader(Given::Text(text)).map_err(|wrong| format!("{}; {}", wrong.problem, wrong.remedy))
    }

    #[test]
    fn durations_have_one_whole_number_and_one_unit() {
        let any = || duration(Duration::ZERO..=400 * DAY, "\"15m\"");
        for (text, millis) in
            [("250ms", 250), ("90s", 90_000), ("15m", 900_000), ("1h", 3_600_000), ("30d", 2_592_000_000)]
        {
            assert_eq!(read(any(), text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(show_duration(Duration::from_millis(millis)), if text == "90s" { "90s" } else { text });
        }
        for bad in ["", "15", "m", "1.5h", "-1s", "1h30m", "15 m", "99999999999999999999s", "18446744073709551615d"] {
            let problem = read(any(), bad).expect_err(bad);
            assert_eq!(problem, format!("{bad:?} is not a duration; write a whole number and ms, s, m, h or d"));
        }
        let short = duration(SECOND..=30 * DAY, "\"1h\"");
        assert_eq!(read(&short, "0s").unwrap_err(), "\"0s\" is too short; write 1s to 30d");
        assert_eq!(read(&short, "31d").unwrap_err(), "\"31d\" is too long; write 1s to 30d");
    }

    #[test]
    fn sizes_are_bytes_or_have_a_binary_unit() {
        let range = || size(4096..=1 << 20, "\"32KiB\"");
        assert_eq!(read(range(), "4096"), Ok(4096));
        assert_eq!(read(range(), "32KiB"), Ok(32_768));
        assert_eq!(read(range(), "1MiB"), Ok(1_048_576));
        assert_eq!(read(range(), "4095").unwrap_err(), "\"4095\" is too small; write 4KiB to 1MiB");
        assert_eq!(read(range(), "1GiB").unwrap_err(), "\"1GiB\" is too large; write 4KiB to 1MiB");
        for bad in ["", "KiB", "32KB", "32 KiB", "1.5MiB", "-1", "99999999999999999999GiB"] {
            assert!(read(range(), bad).expect_err(bad).contains("is not a size"), "{bad}");
        }
    }

    #[test]
    fn a_key_pasted_in_place_of_its_path_is_not_repeated() {
        let pasted = "-----BEGIN PRIVATE KEY-----\nMIIEvQ";
        let problem = read(path("\"key.pem\""), pasted).unwrap_err();
        assert!(!problem.contains("MII"), "{problem}");
    }

    #[test]
    fn long_values_are_cut_and_control_characters_are_escaped() {
        assert_eq!(quote("a\u{1b}[2J"), r#""a\u{1b}[2J""#);
        assert_eq!(quote(&"ä".repeat(100)).chars().count(), 63);
    }
}
