//! Writing the commands that make one key.

use super::ELEMENTS_PER_COMMAND;
use crate::resp::encode;

/// Commands of one key that are being written.
pub(super) struct Commands<'a> {
    /// Whose.
    pub key: &'a [u8],
    /// See [`logical_effect`](super::logical_effect).
    pub has_counters: bool,
    /// Where they are written.
    pub out: &'a mut Vec<u8>,
    /// How many they are.
    pub count: u32,
}

impl Commands<'_> {
    /// A whole command.
    pub fn add(&mut self, args: &[&[u8]]) {
        encode::command(self.out, args);
        self.count += 1;
    }

    /// The name and the key of a command that has that many arguments in all; the others follow.
    pub fn begin(&mut self, name: &[u8], args: usize) {
        encode::array(self.out, args);
        self.args(&[name, self.key]);
        self.count += 1;
    }

    /// More arguments of the command that was begun.
    pub fn args(&mut self, args: &[&[u8]]) {
        for arg in args {
            encode::bulk(self.out, arg);
        }
    }

    /// `name key element…`, as often as `count` elements of `N` arguments need it. `None` if one of them is not there.
    pub fn fill<'e, const N: usize>(
        &mut self,
        name: &[u8],
        count: usize,
        mut elements: impl Iterator<Item = Option<[&'e [u8]; N]>>,
    ) -> Option<()> {
        let mut left = count;
        while left > 0 {
            let now = left.min(ELEMENTS_PER_COMMAND);
            self.begin(name, 2 + now * N);
            for _ in 0..now {
                self.args(&elements.next()??);
            }
            left -= now;
        }
        Some(())
    }
}
