//! What is wrong with a configuration, and where: the text an operator reads when the gateway does not start.

use std::fmt;

use crate::random::is_base62;

/// Where a setting was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In the configuration file.
    File {
        /// The file, as it was named.
        name: String,
        /// The line, from 1.
        line: usize,
    },
    /// In this environment variable.
    Environment(String),
    /// By this option of the command line.
    CommandLine(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Environment(variable) => f.write_str(variable),
            Self::CommandLine(option) => f.write_str(option),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The setting, as in `routes[2].groups[0]`; for a file that cannot be read or parsed, its name and position.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
    /// Where it was given; `None` when it was not given at all.
    pub origin: Option<Origin>,
    /// What to do about it.
    pub remedy: String,
    /// The line of a syntax error, marked.
    pub snippet: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)?;
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, "; {}", self.remedy)?;
        if let Some(snippet) = &self.snippet {
            write!(f, "\n{snippet}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration: what is in the file in the order of its lines, then the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn new(mut faults: Vec<Fault>) -> Self {
        // A syntax error hides what follows it, so it comes first; what has no place reads better after what has one.
        faults.sort_by(|a, b| {
            let key = |fault: &Fault| (fault.snippet.is_none(), fault.origin.is_none(), fault.origin.clone());
            key(a).cmp(&key(b))
        });
        for fault in &mut faults {
            fault.problem = blanked(&fault.problem);
            fault.snippet = fault.snippet.take().map(|snippet| blanked(&snippet));
        }
        Self(faults)
    }

    /// The faults one by one.
    pub fn list(&self) -> &[Fault] {
        &self.0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the configuration has 1 fault:")?,
            count => write!(f, "the configuration has {count} faults:")?,
        }
        for fault in &self.0 {
            write!(f, "\n{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Blanks what looks like an API key or a token. Neither belongs into a configuration, but people paste into the wrong
/// window, and faults quote what they found to a terminal and to the log.
fn blanked(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out.push_str(if is_secret(word) { "[redacted]" } else { word });
        let end = after.find(is_part).unwrap_or(after.len());
        out.push_str(&after[..end]);
        rest = &after[end..];
    }
    out
}

fn is_secret(word: &str) -> bool {
    const LEAST_SECRET: usize = 16;
    let parts: Vec<&str> = word.split('_').collect();
    let is_key = parts.windows(2).any(|pair| {
        let secret = pair[1].bytes().take_while(|c| is_base62(*c)).count();
        pair[0].len() == 12 && pair[0].bytes().all(is_base62) && secret >= LEAST_SECRET
    });
    is_key || (word.contains("eyJ") && word.matches('.').count() >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_key_or_a_token_is_not_quoted() {
        assert_eq!(
            blanked(r#""kb_0123456789ab_0123456789abcdef0123456789abcdef000000" is not an address"#),
            r#""[redacted]" is not an address"#
        );
        assert_eq!(blanked("  1 | listen = eyJhbGciOi.eyJpc3Mi.c2ln\n    | ^"), "  1 | listen = [redacted]\n    | ^");
        for harmless in ["\"1 fortnight\" is not a duration", "tokens.not_before_slack", "", "ä_ö", "a_b_c.d.e"] {
            assert_eq!(blanked(harmless), harmless);
        }
    }
}
