//! The lives of a shadow Redis: what it has when it comes back.

use std::collections::BTreeMap;

use super::data::Keys;
use super::library::Libraries;
use super::redis::Redis;

/// Older copies of its data that a Redis keeps.
const KEPT: usize = 3;

/// Its data at some moment.
#[derive(Clone, Debug, Default)]
pub struct Save {
    pub dbs: BTreeMap<u16, Keys>,
    pub libraries: Libraries,
}

/// What a Redis has after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comeback {
    /// All it had.
    Whole,
    /// Nothing.
    Empty,
    /// What it had at a moment in the past, its libraries as well.
    Older,
}

impl Redis {
    /// The data as it is now.
    pub fn data(&self) -> Save {
        Save { dbs: self.dbs.clone(), libraries: self.libraries.clone() }
    }

    /// Keep a copy of the data as it is now.
    pub fn save(&mut self) {
        if self.saves.len() >= KEPT {
            let index = self.rng.index(KEPT);
            self.saves.remove(index);
        }
        self.saves.push(self.data());
    }

    /// Start anew.
    pub fn restart(&mut self, comeback: Comeback) {
        self.end_connections();
        if comeback == Comeback::Whole {
            return;
        }
        let mut save = Save::default();
        if comeback == Comeback::Older && !self.saves.is_empty() {
            let index = self.rng.index(self.saves.len());
            save = self.saves[index].clone();
        }
        (self.dbs, self.libraries) = (save.dbs, save.libraries);
    }
}
