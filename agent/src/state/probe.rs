//! Whether a state directory could be used, found out without making it.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::Path,
};

use super::Error;

/// Tries to write where the directory is, or would be made: to the nearest folder that is there.
/// Leaves nothing behind. Whether another process has it is not looked at.
pub fn probe(path: &Path) -> Result<(), Error> {
    let failed = |action, path: &Path, source| Error::Failed { action, path: path.into(), source };
    let there = path.ancestors().map(|folder| (folder, fs::metadata(folder)));
    for (folder, found) in there {
        match found {
            Ok(found) if found.is_dir() => {
                return try_to_write(folder).map_err(|source| failed("write to", folder, source));
            }
            Ok(_) => {
                let source = io::Error::from(ErrorKind::NotADirectory);
                return Err(failed("make a folder of", folder, source));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(failed("look at", folder, source)),
        }
    }
    Ok(())
}

fn try_to_write(folder: &Path) -> io::Result<()> {
    let file = folder.join(format!(".sidestream-probe-{}", std::process::id()));
    File::options().write(true).create_new(true).open(&file)?;
    fs::remove_file(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_written_is_told_and_nothing_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for right in [folder.path().to_owned(), folder.path().join("a/b")] {
            probe(&right).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the file");
        for wrong in [&file, &file.join("state"), Path::new("/proc/state")] {
            let error = probe(wrong).unwrap_err().to_string();
            assert!(error.starts_with("can't "), "{error}");
        }
    }
}
