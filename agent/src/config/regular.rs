//! Files that are files.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Opens a file to read it. What is not a file is refused at once: opening a named pipe would wait
/// until somebody writes to it, without a word.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // One step, since what is there may be another thing after a look.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a file")),
    }
}

/// Reads a file of at most `bytes_max` bytes, opened as [`open_regular`] does.
pub fn read_regular(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open_regular(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut content)?;
    match content.len() as u64 <= bytes_max {
        true => Ok(content),
        false => Err(io::Error::other(format!("it is larger than {bytes_max} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_not_a_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        std::os::unix::fs::symlink(path("pipe"), path("link")).unwrap();
        for path in [path("pipe"), path("link"), path(""), "/dev/zero".into()] {
            let refused = open_regular(&path).unwrap_err().to_string();
            assert_eq!(refused, "it is not a file", "{}", path.display());
        }
        std::fs::write(path("file"), "content").unwrap();
        std::os::unix::fs::symlink("file", path("good link")).unwrap();
        for name in ["file", "good link"] {
            assert_eq!(read_regular(&path(name), 7).unwrap(), b"content");
            let refused = read_regular(&path(name), 6).unwrap_err().to_string();
            assert_eq!(refused, "it is larger than 6 bytes");
        }
        open_regular(&path("absent")).unwrap_err();
    }
}
