//! Small files in the data directory, beside the store.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A larger one is none of ours.
const FILE_SIZE_MAX: u64 = 4 << 20;

/// A file, unless it is larger than any of ours.
pub(super) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > FILE_SIZE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
    }
    fs::read(path)
}

/// The file has either its old content or all of the new one, whenever the power goes.
pub(super) fn replace(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let unfinished = directory.join(format!("{name}.new"));
    let mut options = OpenOptions::new();
    // Not of anybody else, from the start.
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(name))?;
    File::open(directory)?.sync_all()
}
