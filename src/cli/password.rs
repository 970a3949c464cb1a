//! Where a new password comes from: a file, standard input or the terminal, never an argument.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use zeroize::Zeroize;

use super::Session;
use super::failure::Failure;
use crate::accounts::NewPassword;
use crate::credentials::{Hasher, Kept, PasswordHash};
use crate::secret::Secret;

/// Longer input is no secret of ours; reading stops there.
const MOST: u64 = 8 * 1024;

/// The options that say where a password comes from.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Source {
    /// Read the password from standard input (one line end at its end is ignored).
    #[arg(long)]
    password_stdin: bool,
    /// Read the password from a file (one line end at its end is ignored).
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Ask for the password on the terminal.
    #[arg(long)]
    password_prompt: bool,
    /// Read a hash of the password that another system made from standard input: bcrypt, or PBKDF2 as PHC, passlib or Django
    /// write it. At its first use the password is hashed anew with argon2id.
    #[arg(long)]
    hash_stdin: bool,
}

impl Source {
    /// Whether one was named.
    pub(super) fn is_named(&self) -> bool {
        self.password_stdin || self.password_prompt || self.hash_stdin || self.password_file.is_some()
    }

    /// Reads, checks and hashes the password; asks for it when no source was named.
    pub(super) fn hashed(&self, session: &mut Session<'_, '_>) -> Result<PasswordHash, Failure> {
        if self.hash_stdin {
            let text = read_secret(&mut *session.stdin, "standard input")?;
            return PasswordHash::import(text.expose(), Kept::Password)
                .map_err(|why| Failure::mendable(format!("standard input holds {why}")));
        }
        let text = if self.password_stdin {
            read_secret(&mut *session.stdin, "standard input")?
        } else if let Some(path) = &self.password_file {
            secret_file(path)?
        } else {
            prompted(session)?
        };
        let password = NewPassword::parse(text)?;
        if password.is_weak() {
            session.out.hint(&format!("a password of {} characters or more is harder to guess", NewPassword::GOOD));
        }
        Ok(Hasher::new(&session.config.credentials)?.hash(password.secret().expose().as_bytes(), Kept::Password)?)
    }
}

fn prompted(session: &mut Session<'_, '_>) -> Result<Secret<String>, Failure> {
    let no_terminal = || {
        Failure::misuse("there is no terminal to ask for the password on")
            .hint("give it with --password-stdin or --password-file FILE")
    };
    let failed = |error: std::io::Error| Failure::mendable(format!("the terminal could not be read: {error}"));
    let first = (session.ask)("New password: ").map_err(failed)?.ok_or_else(no_terminal)?;
    let second = (session.ask)("Once more: ").map_err(failed)?.ok_or_else(no_terminal)?;
    if first == second { Ok(first) } else { Err(Failure::mendable("the two passwords differ; nothing was changed")) }
}

/// Reads a secret from a file.
pub(super) fn secret_file(path: &std::path::Path) -> Result<Secret<String>, Failure> {
    let shown = path.display();
    let mut file =
        File::open(path).map_err(|error| Failure::mendable(format!("{shown} could not be read: {error}")))?;
    read_secret(&mut file, &shown.to_string())
}

/// Reads a secret, without the line end that editors and `echo` put after it.
pub(super) fn read_secret(from: &mut dyn Read, name: &str) -> Result<Secret<String>, Failure> {
    let mut bytes = Vec::with_capacity(MOST as usize + 1);
    let read = from.take(MOST + 1).read_to_end(&mut bytes);
    let text = match read {
        Err(error) => Err(format!("{name} could not be read: {error}")),
        Ok(_) if bytes.len() as u64 > MOST => Err(format!("{name} holds more than a secret")),
        Ok(_) => {
            let line = bytes.strip_suffix(b"\n").map_or(&*bytes, |line| line.strip_suffix(b"\r").unwrap_or(line));
            std::str::from_utf8(line).map(Secret::from).map_err(|_| format!("{name} is not UTF-8 text"))
        }
    };
    bytes.zeroize();
    match text {
        Ok(secret) if secret.expose().is_empty() => Err(Failure::mendable(format!("{name} is empty"))),
        Ok(secret) => Ok(secret),
        Err(why) => Err(Failure::mendable(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_belongs_to_the_file_and_not_to_the_secret() {
        let read = |mut bytes: &[u8]| read_secret(&mut bytes, "it").map(|secret| secret.expose().clone());
        assert_eq!(read(b"open sesame\n").unwrap(), "open sesame");
        assert_eq!(read(b"open sesame\r\n").unwrap(), "open sesame");
        assert_eq!(read(b" open\n\n").unwrap(), " open\n");
        for bad in [&b""[..], b"\n", b"\xff", &[b'x'; 9000]] {
            assert!(read(bad).is_err());
        }
    }
}
