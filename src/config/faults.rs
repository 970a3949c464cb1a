//! What is wrong with a configuration, and where: the text an operator reads when the gateway does not start.

use std::fmt;

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
