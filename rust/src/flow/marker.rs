//! The marker: what a Redis says of its own data, kept *in* that data, so that whatever its AOF lost and whichever old
//! file it loaded, the marker is as old as the rest.
//!
//! From Redis 7.0 on it is a function library, which no key command sees and no FLUSHALL removes; elsewhere a field of
//! a hash in the highest database.

use crate::resp::encode;

/// What every marker begins with; the number is the version of the format.
const HEAD: &str = "redisha:1 ";
/// Where markers are that cannot be libraries.
pub const KEY: &[u8] = b"redisha:markers";
/// The names of the libraries, as a pattern.
pub const LIBRARIES: &str = "redisha_*";

/// Whose data it is on this Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The original.
    Primary,
    /// A copy.
    Mirror,
}

/// One marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The identity of the primary's data.
    pub set: u64,
    /// Which of the two this Redis has.
    pub part: Part,
    /// A hash of the primary's name, as the sidecar's configuration has it.
    pub of: u64,
    /// Everything before this generation is here.
    pub generation: u64,
    /// A resync has not come to its end: keys of any age are here.
    pub partial: bool,
    /// Nobody but this set's sidecar writes here.
    pub sole: bool,
}

/// Whose markers are not foreign.
#[derive(Clone, Debug, Default)]
pub struct Owner {
    /// The identity of the primary's data.
    pub set: u64,
    /// A hash of the machine's and the primary's names.
    pub of: u64,
    /// The data of all primaries of this sidecar: one Redis may be the mirror of several, each with its own keys.
    pub sets: Vec<u64>,
}

/// How markers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// As function libraries.
    #[default]
    Library,
    /// As a hash in this database.
    Hash(u16),
}

impl Marker {
    /// Whether it says that somebody else than this sidecar writes here.
    pub fn is_foreign(&self, owner: &Owner) -> bool {
        // What is a primary's own data is nobody else's to take away, be it of this sidecar.
        let former = self.part == Part::Mirror && self.of == owner.of;
        let sister = self.part == Part::Mirror && owner.sets.contains(&self.set);
        self.set != owner.set && !former && !sister
    }

    fn line(&self) -> String {
        format!(
            "{HEAD}set={:016x} role={} of={:016x} gen={} data={} sole={}",
            self.set,
            if self.part == Part::Primary { "primary" } else { "mirror" },
            self.of,
            self.generation,
            if self.partial { "partial" } else { "complete" },
            if self.sole { "yes" } else { "no" },
        )
    }

    /// The library's code.
    pub fn code(&self) -> String {
        let name = format!("redisha_{:016x}", self.set);
        let line = self.line();
        format!(
            "#!lua name={name}\n-- {line}\nredis.register_function('{name}', function() return '{line}' end)"
        )
    }

    /// The command that writes it.
    pub fn write(&self, place: Place, out: &mut Vec<u8>) {
        match place {
            Place::Library => encode::command(out, &["FUNCTION", "LOAD", "REPLACE", &self.code()]),
            Place::Hash(_) => {
                let set = format!("{:016x}", self.set);
                encode::command(out, &[&b"HSET"[..], KEY, set.as_bytes(), self.line().as_bytes()]);
            }
        }
    }

    /// The command that reads all of them.
    pub fn read(place: Place, out: &mut Vec<u8>) {
        match place {
            Place::Library => {
                encode::command(out, &["FUNCTION", "LIST", "LIBRARYNAME", LIBRARIES, "WITHCODE"]);
            }
            Place::Hash(_) => encode::command(out, &[&b"HGETALL"[..], KEY]),
        }
    }

    /// The command that removes it.
    pub fn remove(&self, place: Place, out: &mut Vec<u8>) {
        match place {
            Place::Library => {
                encode::command(out, &["FUNCTION", "DELETE", &format!("redisha_{:016x}", self.set)]);
            }
            Place::Hash(_) => {
                encode::command(out, &[&b"HDEL"[..], KEY, format!("{:016x}", self.set).as_bytes()]);
            }
        }
    }

    /// All markers in a reply to `FUNCTION LIST … WITHCODE` or `HGETALL`. What is not understood (a newer format) is none.
    pub fn all_in(reply: &[u8]) -> Vec<Self> {
        let text = String::from_utf8_lossy(reply);
        let mut found: Vec<Self> = Vec::new();
        for (at, _) in text.match_indices(HEAD) {
            if let Some(marker) = Self::parse(&text[at + HEAD.len()..])
                && !found.iter().any(|other| other.set == marker.set)
            {
                found.push(marker);
            }
        }
        found
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.split(['\n', '\r', '\'']).next()?;
        let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let hex = |name| u64::from_str_radix(field(name)?, 16).ok();
        Some(Self {
            set: hex("set")?,
            part: match field("role")? {
                "primary" => Part::Primary,
                "mirror" => Part::Mirror,
                _ => return None,
            },
            of: hex("of")?,
            generation: field("gen")?.parse().ok()?,
            partial: field("data")? != "complete",
            sole: field("sole")? == "yes",
        })
    }
}

/// A hash of names that stays the same.
pub fn name_hash(names: &[&str]) -> u64 {
    let mut all = String::new();
    for name in names {
        all.push_str(name);
        all.push('\0');
    }
    xxhash_rust::xxh64::xxh64(all.as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: Marker =
        Marker { set: 0xabc, part: Part::Mirror, of: 5, generation: 17, partial: false, sole: true };

    #[test]
    fn markers_are_read_back() {
        for marker in [MARKER, Marker { part: Part::Primary, partial: true, sole: false, ..MARKER }] {
            let other = Marker { set: 9, ..marker };
            let mut reply = b"*2\r\n".to_vec();
            for one in [&marker, &other] {
                encode::bulk(&mut reply, one.code().as_bytes());
            }
            assert_eq!(Marker::all_in(&reply), [marker, other]);
            let mut hash = Vec::new();
            marker.write(Place::Hash(15), &mut hash);
            assert_eq!(Marker::all_in(&hash), [marker]);
        }
    }

    #[test]
    fn what_is_not_understood_is_no_marker() {
        for text in [
            "",
            "redisha:2 set=1",
            "redisha:1 set=1 role=king of=1 gen=1 data=complete sole=yes",
            "redisha:1 ",
        ] {
            assert_eq!(Marker::all_in(text.as_bytes()), []);
        }
    }
}
