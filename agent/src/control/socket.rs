//! The control socket's file.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;
use tracing::warn;

use super::Error;

/// The file of a socket that was made here. Dropping it removes the file, unless another process has
/// put its own there since.
#[derive(Debug)]
pub(super) struct Own {
    path: PathBuf,
    /// Device and inode.
    place: (u64, u64),
}

impl Drop for Own {
    fn drop(&mut self) {
        let Self { path, place: own } = self;
        match place(path) {
            Ok(there) if there == *own => {
                if let Err(error) = fs::remove_file(&*path) {
                    warn!(%error, socket = %path.display(), "the control socket can't be removed");
                }
            }
            // A successor's, or gone.
            Ok(_) | Err(_) => {}
        }
    }
}

fn place(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Makes a socket with these permissions, for whoever can enter its folder; one that is made for it
/// is its user's alone, or its group's as well, as the socket itself. What an agent before left behind
/// is replaced. `key` is that of the pipeline file which names it.
pub(super) fn bind(
    key: &'static str,
    path: &Path,
    mode: u32,
) -> Result<(UnixListener, Own), Error> {
    if UnixStream::connect(path).is_ok() {
        return Err(Error::InUse(path.to_owned()));
    }
    let bind = || -> io::Result<(UnixListener, Own)> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let there = folder.is_dir();
        fs::create_dir_all(folder)?;
        if !there {
            let group = if mode & 0o060 == 0 { 0 } else { 0o050 };
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700 | group))?;
        }
        // Made private in a folder of its own before anybody can find it.
        let hidden = folder.join(format!(".{}", std::process::id()));
        if hidden.exists() {
            // One that was killed right here; in a container process ids come again.
            fs::remove_dir_all(&hidden)?;
        }
        fs::create_dir(&hidden)?;
        let made = || -> io::Result<(UnixListener, Own)> {
            fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700))?;
            let socket = hidden.join("s");
            let listener = UnixListener::bind(&socket)?;
            fs::set_permissions(&socket, fs::Permissions::from_mode(mode))?;
            let own = Own { path: path.to_owned(), place: place(&socket)? };
            fs::rename(&socket, path)?;
            Ok((listener, own))
        }();
        fs::remove_dir_all(&hidden)?;
        made
    };
    let address = path.display().to_string();
    bind().map_err(|source| Error::Listen { key, address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_successors_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (listener, first) = bind("control.listen", &path, 0o600).unwrap();
        assert!(matches!(bind("control.listen", &path, 0o600), Err(Error::InUse(_))));
        drop(listener);
        // It listens no more, and has not removed its file yet.
        let (_listener, second) = bind("control.listen", &path, 0o600).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
        drop(second);
        assert!(!path.exists());
    }
}
