//! The state directory: the memory of the dirty maps. It outlives the engine, as the page cache outlives a process that
//! is killed.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redisha_core::flow::{REGION_BYTES, Region};

use super::rng::Rng;

/// The files by name; `None` while an engine has it.
type Files = BTreeMap<u64, Option<Vec<u8>>>;

/// The directory.
#[derive(Debug, Default)]
pub struct Shelf {
    files: Arc<Mutex<Files>>,
    /// The machine's boot.
    pub boot: [u8; 16],
    /// Some maps cannot be opened.
    pub blind: bool,
}

/// A file that is mapped. What was written to it is there again when it is opened the next time.
struct Mapped {
    bytes: Vec<u8>,
    name: u64,
    files: Arc<Mutex<Files>>,
}

impl Shelf {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A map: zeroes when it is new.
    pub fn open(&self, name: u64) -> Region {
        let bytes = match self.files().insert(name, None) {
            Some(Some(bytes)) if bytes.len() == REGION_BYTES => bytes,
            // It is new, or of another size: the shell begins anew.
            None | Some(Some(_)) => vec![0; REGION_BYTES],
            Some(None) => panic!("the map {name:016x} is opened twice"),
        };
        Box::new(Mapped { bytes, name, files: Arc::clone(&self.files) })
    }

    /// Somebody removes the files that no engine has.
    pub fn lose(&self) {
        self.files().retain(|_, file| file.is_none());
    }

    /// What is in them is not what was written.
    pub fn damage(&self, rng: &mut Rng) {
        for bytes in self.files().values_mut().flatten() {
            match rng.below(3) {
                // The header alone.
                0 => bytes[rng.index(32)] ^= 1 << rng.below(8),
                1 => bytes.iter_mut().for_each(|byte| *byte = rng.next() as u8),
                _ => bytes.truncate(rng.index(REGION_BYTES)),
            }
        }
    }

    /// The machine ends without warning: what was not written to the disk yet is gone.
    pub fn reboot(&mut self, rng: &mut Rng) {
        self.boot = [rng.next() as u8; 16];
        for bytes in self.files().values_mut().flatten() {
            let from = rng.index(bytes.len() + 1);
            if rng.one_in(2) {
                bytes[from..].fill(0);
            }
        }
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Mapped {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(self.name, Some(bytes));
    }
}
