//! Asks for a secret on the terminal, without echo.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Asks on the controlling terminal, whatever standard input and output are; `None` when there is none.
///
/// # Errors
/// When the terminal cannot be read or set.
pub fn ask(prompt: &str) -> io::Result<Option<Secret<String>>> {
    let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else { return Ok(None) };
    let mut line = Zeroizing::new(String::with_capacity(1100));
    {
        // Silence comes before the question: nothing of an answer that comes at once may be echoed.
        let _silent = Silent::new(&terminal)?;
        (&terminal).write_all(prompt.as_bytes())?;
        BufReader::new((&terminal).take(8 * 1024)).read_line(&mut line)?;
    }
    terminal.write_all(b"\n")?;
    let text = line.strip_suffix('\n').unwrap_or(&line);
    Ok(Some(Secret::from(text)))
}

/// A terminal without echo, until it is dropped.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // There is nothing left to do about a terminal that is gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
