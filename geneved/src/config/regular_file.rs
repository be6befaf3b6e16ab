//! Reads files for the daemon: regular files only, up to a maximum size.
//!
//! A FIFO would block the daemon forever, opening a device may have side effects, and `/dev/zero` never ends.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NONBLOCK};

/// Opens a regular file without blocking.
///
/// # Errors
/// If the kernel refuses, or the file is of another type, which the error names.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    // Opening a device may have side effects, so the type is checked before, and again afterwards in case the file
    // was replaced.
    ensure_regular(&std::fs::metadata(path)?)?;
    let file = File::options()
        .read(true)
        .custom_flags(O_NONBLOCK | O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    ensure_regular(&metadata)?;
    Ok((file, metadata))
}

/// Reads a regular file as text; `None` if it has more than `most` bytes.
///
/// # Errors
/// As [`open`]; also if it is not UTF-8.
pub fn read_to_string(path: &Path, most: usize) -> io::Result<Option<String>> {
    let (file, _) = open(path)?;
    let mut text = String::new();
    // A file may grow while it is read, and files in /proc claim to be empty.
    file.take(most as u64 + 1).read_to_string(&mut text)?;
    Ok((text.len() <= most).then_some(text))
}

fn ensure_regular(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "it is a directory",
        () if kind.is_fifo() => "it is a FIFO",
        () if kind.is_socket() => "it is a socket",
        () => "it is a device",
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{what}, not a regular file"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read_and_only_up_to_the_bound() {
        let directory = tempfile::tempdir().unwrap();
        let (file, fifo) = (directory.path().join("file"), directory.path().join("fifo"));
        std::fs::write(&file, "12345").unwrap();
        assert_eq!(read_to_string(&file, 5).unwrap().as_deref(), Some("12345"));
        assert_eq!(read_to_string(&file, 4).unwrap(), None);
        let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
        nix::unistd::mkfifo(&fifo, mode).unwrap();
        for (path, what) in [(fifo.as_path(), "FIFO"), (Path::new("/dev/zero"), "device")] {
            let told = read_to_string(path, 100).unwrap_err().to_string();
            assert!(told.contains(what), "{told}");
        }
        assert!(read_to_string(directory.path(), 100).is_err());
    }
}
