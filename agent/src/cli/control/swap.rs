//! `sidestream swap` and `sidestream rollback`.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum, ValueHint};

use super::{
    At, Failure, connect,
    course::{Act, Course, Until},
};
use crate::{
    cli::{
        finding::{About, Finding},
        output::Output,
    },
    config::open_regular,
    control::proto::{RollbackRequest, SwapRequest},
};

/// How large a file is read; what the agent takes is `limits.module_bytes_max`.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What to swap.
#[derive(Clone, Debug, Args)]
pub struct ToSwap {
    /// The transform.
    pub transform: String,
    /// The file of its new module.
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Compile, compare and initialise the module, show what a swap would do, and replace nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Return once the new module runs everywhere; its probation goes on.
    #[arg(long, conflicts_with = "dry_run")]
    pub no_wait: bool,
    /// In what the new module may do worse than the one that runs, whatever the pipeline file says:
    /// `failures` (it may reject what that one does not), `cpu`, `memory`, `output`.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    pub accept: Vec<Accept>,
}

/// In what a new module may do worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accept {
    /// It may reject records that the one before does not.
    Failures,
    /// It may take more processor time.
    Cpu,
    /// Its instances may take more memory.
    Memory,
    /// It may emit more.
    Output,
}

impl Accept {
    fn word(self) -> String {
        let value = self.to_possible_value().expect("none of these is left out");
        value.get_name().to_owned()
    }
}

/// What to go back to.
#[derive(Clone, Debug, Args)]
pub struct ToRollBack {
    /// The transform.
    pub transform: String,
    /// The version: its digest, or the first digits of it, as `status` lists them. The one before
    /// the running one unless set.
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    pub to: Option<String>,
}

/// Swaps a module, and waits until it is decided whether it stays.
pub(super) fn swap(at: &At, swap: &ToSwap, output: &mut Output) -> Result<(), Failure> {
    let module = read(&swap.file).map_err(|finding| vec![finding])?;
    let mut client = connect(at)?;
    let name = swap.file.file_name().unwrap_or(swap.file.as_os_str());
    let request = SwapRequest {
        transform: swap.transform.clone(),
        module,
        name: name.to_string_lossy().into_owned(),
        dry_run: swap.dry_run,
        accept: swap.accept.iter().map(|accept| accept.word()).collect(),
    };
    let until = match (swap.dry_run, swap.no_wait) {
        (true, _) => Until::Plan,
        (false, true) => Until::Probation,
        (false, false) => Until::End,
    };
    let mut course = Course::new(&swap.transform, Act::Swap, until, output);
    course.sending(&request.name, output);
    let ended = client.swap(request, |update| course.take(update, output));
    course.end(&ended, output)
}

/// Goes back to a version that ran before, and waits until it is decided whether it stays.
pub(super) fn roll_back(at: &At, to: &ToRollBack, output: &mut Output) -> Result<(), Failure> {
    let mut client = connect(at)?;
    let digest = to.to.clone().unwrap_or_default();
    let request = RollbackRequest { transform: to.transform.clone(), digest };
    let mut course = Course::new(&to.transform, Act::Rollback, Until::End, output);
    let ended = client.rollback(request, |update| course.take(update, output));
    course.end(&ended, output)
}

/// Reads a version as it can be named.
fn digest(text: &str) -> Result<String, String> {
    match text.len() {
        1..=64 if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(text.to_ascii_lowercase())
        }
        _ => Err("write hexadecimal digits, 64 at most".to_owned()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Finding> {
    let wrong = |message: String| Finding {
        file: Some(path.display().to_string()),
        ..Finding::new(About::Module, message)
    };
    let mut module = Vec::new();
    open_regular(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut module))
        .map_err(|error| wrong(format!("the module can't be read: {error}")))?;
    match module.len() as u64 {
        0 => Err(wrong("the file is empty".to_owned())),
        1..=FILE_BYTES_MAX => Ok(module),
        _ => Err(wrong(format!("the file has more than {FILE_BYTES_MAX} bytes: no module"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_by_digits() {
        assert_eq!(digest("3F2a"), Ok("3f2a".to_owned()));
        for wrong in ["", "3g", "0x3f", &"0".repeat(65)] {
            assert!(digest(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_is_no_module_is_told_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.wasm");
        std::fs::write(&empty, "").unwrap();
        let (absent, itself) = (folder.path().join("absent"), folder.path().to_owned());
        let wrong = [(empty, "empty"), (absent, "can't be read"), (itself, "it is not a file")];
        for (path, says) in wrong {
            let finding = read(&path).unwrap_err();
            assert_eq!(finding.about, About::Module);
            let text = finding.to_string();
            assert!(text.contains(says) && text.contains(&path.display().to_string()), "{text}");
        }
    }
}
