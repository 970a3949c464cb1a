//! Hands out the settings of the file and the environment one by one, and keeps a record of every fault on the way.
//!
//! Whatever was given and never asked for is unknown; what was asked for is known, which is where suggestions come from.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::faults::{Fault, Faults, Origin};
use super::suggest;
use super::values::{Given, Read, Wrong};

/// What the variables of the environment begin with. Two underscores, because a container platform sets variables such as
/// `KEYBEARER_PORT` by itself for a service of that name.
const PREFIX: &str = "KEYBEARER__";

/// A setting that nothing asked for.
struct Unknown {
    path: String,
    origin: Origin,
    is_section: bool,
}

/// The state of one reading.
pub(super) struct Reader<'i> {
    file: &'i str,
    text: &'i str,
    /// By setting; taken out as they are read.
    variables: BTreeMap<String, (String, String)>,
    known: Vec<String>,
    unknown: Vec<Unknown>,
    origins: BTreeMap<String, Origin>,
    faults: Vec<Fault>,
}

impl<'i> Reader<'i> {
    /// Reads from the file of that name and text, and from those of `environment` that are ours.
    pub fn new(file: &'i str, text: &'i str, environment: impl Iterator<Item = (String, String)>) -> Self {
        let mut reader = Self {
            file,
            text,
            variables: BTreeMap::new(),
            known: Vec::new(),
            unknown: Vec::new(),
            origins: BTreeMap::new(),
            faults: Vec::new(),
        };
        for (name, value) in environment {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let path = rest.to_lowercase().replace("__", ".");
            if variable(&path) == name {
                reader.variables.insert(path, (name, value));
            } else {
                reader.unknown.push(Unknown { path, origin: Origin::Environment(name), is_section: false });
            }
        }
        reader
    }

    /// Reads the whole of `table`.
    pub fn root(&mut self, table: &'i DeTable<'i>, read: impl FnOnce(&mut Section<'_, 'i>)) {
        Section { reader: self, path: String::new(), table: Some(table), given: true, asked: Vec::new() }.run(read);
    }

    /// Records that a setting was given on the command line.
    pub fn overridden(&mut self, path: &str, option: &'static str) {
        self.origins.insert(path.into(), Origin::CommandLine(option));
    }

    /// Records a fault of the file itself.
    pub fn push(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Records a fault of a setting that was read before.
    pub fn object(&mut self, path: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let origin = self.origins.get(path).cloned();
        let (problem, remedy) = (problem.into(), remedy.into());
        self.faults.push(Fault { path: path.into(), problem, origin, remedy, snippet: None });
    }

    /// Whether a setting has no fault so far: what depends on a faulty one is not worth a second message.
    pub fn is_sound(&self, path: &str) -> bool {
        self.faults.iter().all(|fault| fault.path != path && !fault.path.starts_with(&format!("{path}[")))
    }

    /// Whether a setting was given anywhere.
    pub fn is_given(&self, path: &str) -> bool {
        self.origins.contains_key(path)
    }

    /// The settings that were asked for, as paths.
    #[cfg(test)]
    pub fn known(&self) -> &[String] {
        &self.known
    }

    /// Ends the reading.
    pub fn finish(mut self) -> Result<(), Faults> {
        for (path, (name, _)) in std::mem::take(&mut self.variables) {
            self.unknown.push(Unknown { path, origin: Origin::Environment(name), is_section: false });
        }
        for unknown in std::mem::take(&mut self.unknown) {
            let (problem, remedy) = self.explain(&unknown);
            let Unknown { path, origin, .. } = unknown;
            self.faults.push(Fault { path, problem, origin: Some(origin), remedy, snippet: None });
        }
        if self.faults.is_empty() { Ok(()) } else { Err(Faults::new(self.faults)) }
    }

    fn explain(&self, unknown: &Unknown) -> (String, String) {
        let (parent, key) = split(&unknown.path);
        let in_environment = matches!(unknown.origin, Origin::Environment(_));
        let spell = |path: &str| if in_environment { variable(path) } else { format!("{:?}", split(path).1) };
        let inside = format!("{}.", unknown.path);
        let list = ["claims", "plans", "repositories", "routes", "upstreams"]
            .into_iter()
            .find(|list| key == *list || unknown.path.strip_prefix(list).is_some_and(|rest| rest.starts_with('.')));
        if let (true, Some(list)) = (in_environment, list) {
            let remedy = format!("write [[{list}]] in a configuration file");
            return (format!("{list} cannot be set from the environment"), remedy);
        }
        if let Some(setting) = self.known.iter().find(|known| known.starts_with(&inside)) {
            let problem = "is a section, not a setting".into();
            return (problem, format!("name a setting in it, as in {}", variable(setting)));
        }
        let problem = if unknown.is_section { "unknown section" } else { "unknown setting" }.to_owned();
        let siblings = || self.known.iter().filter(|known| split(known).0 == parent).map(|known| split(known).1);
        // The environment may have the section wrong as well, so there the whole of the path is compared.
        let close = match in_environment {
            true => suggest::closest(&unknown.path, self.known.iter().map(String::as_str)).map(str::to_owned),
            false => suggest::closest(key, siblings()).map(|close| join(parent, close)),
        };
        if let Some(close) = close {
            return (problem, format!("did you mean {}?", spell(&close)));
        }
        if let Some(elsewhere) = self.known.iter().find(|known| split(known).1 == key && !known.contains('[')) {
            let place = match (in_environment, split(elsewhere).0) {
                (true, _) => variable(elsewhere),
                (false, "") => "the top of the file, above all sections".into(),
                (false, section) => format!("{key:?} in [{section}]"),
            };
            return (problem, format!("did you mean {place}?"));
        }
        let known: Vec<&str> = siblings().collect();
        match known.is_empty() {
            true => (problem, "remove it".into()),
            false => (problem, format!("remove it; known here: {}", known.join(", "))),
        }
    }

    fn origin_at(&self, offset: usize) -> Origin {
        Origin::File { name: self.file.to_owned(), line: position(self.text, offset).0 }
    }

    fn wrong(&mut self, path: String, origin: Origin, wrong: Wrong) {
        let Wrong { problem, mut remedy, example } = wrong;
        // A suggestion is an example in itself.
        if !remedy.ends_with('?') && !example.is_empty() {
            remedy += &match &origin {
                Origin::Environment(name) => format!(", as in {name}={}", example.replace(['"', '[', ']'], "")),
                _ => {
                    let key = split(&path).1;
                    format!(", as in {} = {example}", key.split_once('[').map_or(key, |(key, _)| key))
                }
            };
        }
        self.faults.push(Fault { path, problem, origin: Some(origin), remedy, snippet: None });
    }
}

/// One section of the configuration.
pub(super) struct Section<'r, 'i> {
    reader: &'r mut Reader<'i>,
    path: String,
    table: Option<&'i DeTable<'i>>,
    given: bool,
    asked: Vec<&'static str>,
}

impl<'i> Section<'_, 'i> {
    /// Reads the section and then takes note of what was not asked for.
    fn run(mut self, read: impl FnOnce(&mut Self)) {
        read(&mut self);
        for (key, value) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if !self.asked.contains(&name) {
                let path = join(&self.path, name);
                let origin = self.reader.origin_at(key.span().start);
                self.reader.unknown.push(Unknown { path, origin, is_section: is_section(value.get_ref()) });
            }
        }
    }

    /// Reads a setting into `into`, which keeps its default when none is given. The file is read even when the environment
    /// has the last word: a fault there would only wait for the variable to be removed.
    pub fn read<T>(&mut self, key: &'static str, into: &mut T, parse: impl Fn(Given) -> Read<T>) {
        let path = self.ask(key);
        if let Some(value) = self.in_file(key) {
            let origin = self.reader.origin_at(value.span().start);
            self.settle(&path, origin, parse(Given::Toml(value.get_ref())), into);
        }
        if let Some((name, text)) = self.reader.variables.remove(&path) {
            self.settle(&path, Origin::Environment(name), parse(Given::Text(&text)), into);
        }
    }

    /// Reads a setting that may be absent.
    pub fn read_some<T>(&mut self, key: &'static str, into: &mut Option<T>, parse: impl Fn(Given) -> Read<T>) {
        self.read(key, into, |given| parse(given).map(Some));
    }

    /// Reads a list: an array in the file, separated by commas in the environment.
    pub fn list<T>(&mut self, key: &'static str, into: &mut Vec<T>, parse: impl Fn(Given) -> Read<T>) {
        let path = self.ask(key);
        if let Some(value) = self.in_file(key) {
            let origin = self.reader.origin_at(value.span().start);
            match value.get_ref() {
                DeValue::Array(items) => {
                    let items = items
                        .iter()
                        .map(|item| (self.reader.origin_at(item.span().start), parse(Given::Toml(item.get_ref()))));
                    let items = items.collect();
                    self.settle_all(&path, origin, items, into);
                }
                other => {
                    let wrong = Given::Toml(other).is_not("a list", "write it in brackets", "[\"…\", \"…\"]");
                    self.reader.wrong(path.clone(), origin, wrong);
                }
            }
        }
        if let Some((name, text)) = self.reader.variables.remove(&path) {
            let origin = Origin::Environment(name);
            // An empty variable is an empty list, not a list of one empty item.
            let items = if text.is_empty() { vec![] } else { text.split(',').map(str::trim).collect() };
            let items = items.into_iter().map(|item| (origin.clone(), parse(Given::Text(item)))).collect();
            self.settle_all(&path, origin, items, into);
        }
    }

    /// Reads a list that may be written as its only item.
    pub fn one_or_more<T>(&mut self, key: &'static str, into: &mut Vec<T>, parse: impl Fn(Given) -> Read<T>) {
        match self.in_file(key).map(Spanned::get_ref) {
            Some(DeValue::Array(_)) => self.list(key, into, parse),
            None if self.reader.variables.contains_key(&join(&self.path, key)) => self.list(key, into, parse),
            _ => {
                self.read(key, into, |given| match given {
                    // The environment has the last word, and its own way of writing lists.
                    Given::Text(text) => text.split(',').map(|item| parse(Given::Text(item.trim()))).collect(),
                    Given::Toml(_) => parse(given).map(|item| vec![item]),
                });
            }
        }
    }

    /// Records a setting that must be given and was not.
    pub fn require(&mut self, key: &'static str, remedy: &str) {
        let path = join(&self.path, key);
        if !self.reader.is_given(&path) && self.reader.is_sound(&path) {
            // The section is where it is missing.
            let origin = self.reader.origins.get(&self.path).cloned();
            let (problem, remedy) = ("is not given".into(), remedy.into());
            self.reader.faults.push(Fault { path, problem, origin, remedy, snippet: None });
        }
    }

    /// Whether a setting of this section was given, soundly or not.
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.get(key).is_some()) || self.reader.is_given(&join(&self.path, key))
    }

    /// Records a fault of a setting of this section: where it is written, or else where the section is.
    pub fn object(&mut self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let path = join(&self.path, key);
        let origins = &self.reader.origins;
        let origin = origins.get(&path).or_else(|| origins.get(&self.path)).cloned();
        let (problem, remedy) = (problem.into(), remedy.into());
        self.reader.faults.push(Fault { path, problem, origin, remedy, snippet: None });
    }

    /// Whether any of the section was given.
    pub fn is_given(&self) -> bool {
        self.given
    }

    /// Reads the section below this one, whether it is given or not: its settings are known either way.
    pub fn section(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_, 'i>)) {
        let path = self.ask(key);
        let inside = format!("{path}.");
        let in_environment = self.reader.variables.keys().any(|variable| variable.starts_with(&inside));
        let mut table = None;
        if let Some(value) = self.in_file(key) {
            let origin = self.reader.origin_at(value.span().start);
            match value.get_ref() {
                DeValue::Table(found) => {
                    self.reader.origins.insert(path.clone(), origin);
                    table = Some(found);
                }
                other => {
                    let remedy = format!("write [{path}] on a line of its own and its settings below it");
                    self.reader.wrong(path.clone(), origin, Given::Toml(other).is_not("a section", remedy, ""));
                }
            }
        }
        let given = table.is_some() || in_environment;
        Section { reader: self.reader, path, table, given, asked: Vec::new() }.run(read);
    }

    /// Reads each table of a list of tables, and says whether the list was given. Only the file can have one.
    pub fn sections(&mut self, key: &'static str, mut read: impl FnMut(&mut Section<'_, 'i>)) -> bool {
        let path = self.ask(key);
        let Some(value) = self.in_file(key) else { return false };
        let remedy = format!("write [[{path}]], in double brackets, once for each");
        let origin = self.reader.origin_at(value.span().start);
        let DeValue::Array(items) = value.get_ref() else {
            let wrong = Given::Toml(value.get_ref()).is_not("a list of sections", remedy, "");
            self.reader.wrong(path, origin, wrong);
            return true;
        };
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let origin = self.reader.origin_at(item.span().start);
            match item.get_ref() {
                DeValue::Table(table) => {
                    self.reader.origins.insert(path.clone(), origin);
                    Section { reader: self.reader, path, table: Some(table), given: true, asked: Vec::new() }
                        .run(&mut read);
                }
                other => {
                    let wrong = Given::Toml(other).is_not("a section", &*remedy, "");
                    self.reader.wrong(path, origin, wrong);
                }
            }
        }
        true
    }

    fn ask(&mut self, key: &'static str) -> String {
        self.asked.push(key);
        let path = join(&self.path, key);
        self.reader.known.push(path.clone());
        path
    }

    fn in_file(&self, key: &str) -> Option<&'i Spanned<DeValue<'i>>> {
        self.table?.get(key)
    }

    fn settle<T>(&mut self, path: &str, origin: Origin, read: Read<T>, into: &mut T) {
        match read {
            Ok(value) => {
                *into = value;
                self.reader.origins.insert(path.to_owned(), origin);
            }
            Err(wrong) => self.reader.wrong(path.to_owned(), origin, wrong),
        }
    }

    fn settle_all<T>(&mut self, path: &str, origin: Origin, items: Vec<(Origin, Read<T>)>, into: &mut Vec<T>) {
        let mut values = Vec::with_capacity(items.len());
        for (index, (origin, item)) in items.into_iter().enumerate() {
            match item {
                Ok(value) => values.push(value),
                Err(wrong) => self.reader.wrong(format!("{path}[{index}]"), origin, wrong),
            }
        }
        *into = values;
        self.reader.origins.insert(path.to_owned(), origin);
    }
}

/// Line and column of a byte in a text, both from 1.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn is_section(value: &DeValue) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(items) => items.iter().any(|item| item.get_ref().is_table()),
        _ => false,
    }
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// The variable of a setting.
fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_uppercase().replace('.', "__"))
}
