//! New files with a secret in them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::failure::Failure;
use crate::secret::Secret;

/// Writes a file for its owner alone, which is there with its whole content or not at all. One that is there is left.
pub(super) fn write_new(path: &Path, content: &Secret<String>) -> Result<(), Failure> {
    let shown = path.display();
    write(path, content).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::mendable(format!("{shown} is there already; it was left as it is")).hint("name a new file")
        }
        _ => Failure::mendable(format!("{shown} could not be written: {error}")),
    })
}

fn write(path: &Path, content: &Secret<String>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(content.expose().as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // What is half written is no key, and would be in the way of the next attempt.
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
