//! Memory that is a file: the only place with `unsafe`.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use memmap2::MmapMut;
use rustix::fs::{FallocateFlags, FlockOperation};

/// A file whose bytes are memory. It stays what it is when the process is killed, and is written out when it is dropped.
#[derive(Debug)]
pub struct FileMemory {
    memory: MmapMut,
    /// Holds the lock.
    _file: File,
}

/// The first byte of a file that had another size: nothing of it is left, and it is not a new one.
const TORN: u8 = b'?';

impl FileMemory {
    /// Open or make a file of `bytes` bytes, all of them on the disk, that no other process has open this way. The one
    /// that was there is kept if it has this size; otherwise it begins with zeroes again.
    pub fn open(path: &Path, bytes: usize) -> io::Result<Self> {
        let before = std::fs::metadata(path).map(|m| m.len()).ok();
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another redisha uses it"))?;
        if file.metadata()?.len() != bytes as u64 {
            file.set_len(0)?;
            // Without room on the disk, writing to the memory would end the process (SIGBUS).
            if rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes as u64).is_err() {
                use std::io::Write;
                (&file).write_all(&vec![0; bytes])?;
            }
        }
        #[expect(unsafe_code, reason = "law 12: the mapping of the dirty file")]
        // SAFETY: the lock keeps every other redisha away, and nothing else has a reason to change the file's size.
        let mut memory = unsafe { MmapMut::map_mut(&file)? };
        if before.is_some_and(|len| len != bytes as u64) {
            memory[0] = TORN;
        }
        Ok(Self { memory, _file: file })
    }
}

impl Deref for FileMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory
    }
}

impl DerefMut for FileMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

impl Drop for FileMemory {
    fn drop(&mut self) {
        let _ = self.memory.flush();
    }
}

/// Remove the files of a folder whose name is `unwanted`, unless another process has them open.
pub fn remove_files(folder: &Path, unwanted: impl Fn(&str) -> bool) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_name().to_str().is_some_and(&unwanted)) {
        if let Ok(file) = File::open(entry.path())
            && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// What names this boot of the machine; zeroes where nothing does.
pub fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("redisha-{}-{name}", std::process::id()))
    }

    #[test]
    fn what_was_written_is_there_again() {
        let path = path("kept");
        let mut memory = FileMemory::open(&path, 5_000).expect("a new file");
        assert!(memory.iter().all(|byte| *byte == 0));
        memory[4_999] = 7;
        assert!(FileMemory::open(&path, 5_000).is_err(), "it is in use");
        drop(memory);
        assert_eq!(FileMemory::open(&path, 5_000).expect("the file")[4_999], 7);
        let torn = FileMemory::open(&path, 6_000).expect("another size");
        assert_eq!((torn[0], torn[1..].iter().max()), (TORN, Some(&0)), "it is empty, and not as a new one");
        drop(torn);
        std::fs::remove_file(&path).expect("it is there");
    }

    #[test]
    fn what_cannot_be_opened_is_told() {
        assert!(FileMemory::open(Path::new("/proc/no/such/file"), 10).is_err());
    }

    #[test]
    fn files_in_use_are_not_removed() {
        let folder = path("folder");
        std::fs::create_dir_all(&folder).expect("a folder");
        let kept = FileMemory::open(&folder.join("a.map"), 100).expect("a file");
        drop(FileMemory::open(&folder.join("b.map"), 100).expect("a file"));
        remove_files(&folder, |name| name.len() == 5);
        assert_eq!((folder.join("a.map").exists(), folder.join("b.map").exists()), (true, false));
        drop(kept);
        std::fs::remove_dir_all(&folder).expect("it is there");
    }

    #[test]
    fn the_boot_has_a_name() {
        assert_eq!(boot_id(), boot_id());
    }
}
