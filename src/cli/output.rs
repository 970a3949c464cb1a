//! What a command prints: data on stdout, everything else on stderr.

use std::borrow::Cow;
use std::io::Write;

use serde::Serialize;

use super::failure::Failure;
use crate::ids::controls;

/// The two streams of a command, and the form of its data.
pub(super) struct Output<'a> {
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
    json: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(stdout: &'a mut dyn Write, stderr: &'a mut dyn Write, json: bool) -> Self {
        Self { stdout, stderr, json }
    }

    /// Whether data is one JSON document.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// Data as text. It is flushed, so that what was reported as printed was.
    pub(super) fn data(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.stdout, "{text}").and_then(|()| self.stdout.flush()).map_err(Failure::stdout)
    }

    /// Data as a JSON document.
    pub(super) fn document(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::ours(error.to_string()))?;
        self.data(&text)
    }

    /// Data as a table with aligned columns.
    pub(super) fn table<const N: usize>(&mut self, head: [&str; N], rows: Vec<[String; N]>) -> Result<(), Failure> {
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend(rows);
        let widths: [usize; N] =
            std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
        let rendered: Vec<String> = lines
            .iter()
            .map(|line| {
                let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
                cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
            })
            .collect();
        self.data(&rendered.join("\n"))
    }

    /// Data as a table of figures: the first `texts` columns are words, the others numbers, which end below one another.
    pub(super) fn figures(&mut self, lines: &[Vec<String>], texts: usize) -> Result<(), Failure> {
        let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |column: usize| lines.iter().filter_map(move |line| line.get(column));
        let widths: Vec<usize> =
            (0..columns).map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
        let rendered: Vec<String> = lines
            .iter()
            .map(|line| {
                let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column < texts {
                    true => format!("{cell:width$}"),
                    false => format!("{cell:>width$}"),
                });
                cells.collect::<Vec<_>>().join("  ")
            })
            .collect();
        self.data(&rendered.join("\n"))
    }

    /// Data as named fields, one a line.
    pub(super) fn fields(&mut self, fields: &[(&str, String)]) -> Result<(), Failure> {
        let width = fields.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0);
        let lines: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{:width$} {value}", format!("{name}:")).trim_end().to_owned())
            .collect();
        self.data(&lines.join("\n"))
    }

    /// What was done, for people. It may repeat what a file says that nobody has vouched for.
    pub(super) fn note(&mut self, text: &str) {
        // With stderr gone there is nobody left to tell; the command goes on.
        let _ = writeln!(self.stderr, "{}", plain(text));
    }

    /// What people should know beyond that.
    pub(super) fn warn(&mut self, text: &str) {
        self.note(&format!("warning: {text}"));
    }

    /// What to do next.
    pub(super) fn hint(&mut self, text: &str) {
        self.note(&format!("hint: {text}"));
    }

    /// Why the command failed, and what to do.
    pub(super) fn failure(&mut self, failure: &Failure) {
        self.note(&format!("error: {}", failure.message()));
        if let Some(hint) = failure.what_next() {
            self.hint(hint);
        }
    }
}

/// Lines that say to a terminal what they are, and nothing else.
fn plain(text: &str) -> Cow<'_, str> {
    let is_odd = |c: char| c != '\n' && controls(c);
    if !text.contains(is_odd) {
        return text.into();
    }
    let mut plain = String::new();
    for c in text.chars() {
        if is_odd(c) { plain.extend(c.escape_unicode()) } else { plain.push(c) }
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut out = Output::new(&mut stdout, &mut stderr, false);
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        out.table(["NAME", "TITLE"], vec![row("köln", "x"), row("a", "")]).unwrap();
        out.fields(&[("id", "1".into()), ("title", String::new())]).unwrap();
        assert_eq!(String::from_utf8(stdout).unwrap(), "NAME  TITLE\nköln  x\na\nid:    1\ntitle:\n");
    }
}
