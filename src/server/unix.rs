//! The Unix socket where proxies on this machine ask: its file, and who may write to it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};

use axum_server::Handle;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::UnixListener;

/// Whoever is of the group may ask. The folder's own mode may narrow that.
const MODE: u32 = 0o660;

/// A socket that is bound and not served yet.
#[derive(Debug)]
pub struct Bound {
    /// It.
    pub listener: UnixListener,
    /// Its file.
    pub file: SocketFile,
}

/// A socket's file, which goes when this is dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

/// A socket that is served.
#[derive(Debug)]
pub struct Socket {
    /// Ends its server.
    pub handle: Handle<SocketAddr>,
    /// Kept until then.
    pub _file: SocketFile,
}

impl Bound {
    /// Binds a socket at `path`. A socket that a process left behind is replaced, one that is answered is not.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] where another process answers, [`io::ErrorKind::AlreadyExists`] where there is something
    /// else, and the system's.
    pub fn at(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
            Ok(_) if UnixStream::connect(path).is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
            Ok(_) => fs::remove_file(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // From its first moment nobody else may connect.
        let before = umask(Mode::from_raw_mode(0o777 & !MODE));
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound?;
        let file = SocketFile(path.to_owned());
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        Ok(Self { listener, file })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have replaced it by then; that a stale file stays does no harm.
        let _ = fs::remove_file(&self.0);
    }
}
