//! What a replica needs to be equal again, and how far it has come.
//!
//! The stream of effects is attached first. Then the keys that may differ are looked for with `SCAN` on both sides, and
//! each is copied in order with the writes; a key that only the mirror has is copied as its absence. Keys that live
//! writes touch meanwhile are copied as well, see `mirror::spread_doubt`. So the scan may miss what comes and goes.

use super::dirty::Scope;
use super::marker::{Marker, Owner, Part};

/// What is known of a mirror's Redis that does not simply go on where the log was.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Whose mirror it is.
    pub owner: &'a Owner,
    /// The markers on it.
    pub markers: &'a [Marker],
    /// It is the process that the map tells of: whether it was this sidecar's alone.
    pub same_process: Option<bool>,
    /// It has no key at all.
    pub empty: bool,
    /// Somebody else was seen to write there.
    pub shared: bool,
    /// The operator said that it is this sidecar's alone.
    pub claimed: bool,
    /// Only a comparison of everything will do: keys that cannot be named were in doubt, or the operator asked for it.
    pub full: bool,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which way.
    pub way: Way,
    /// The mirror may be overwritten and emptied: nobody else writes there.
    pub sole: bool,
}

/// The ways to be equal again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What was marked dirty since this generation, if the map still tells.
    Since(u64),
    /// Every key.
    Full,
}

/// The rules of which resync, in one place.
pub fn decide(view: &View<'_>) -> Decision {
    let mirror = |m: &&Marker| m.part == Part::Mirror;
    let mine = view.markers.iter().filter(mirror).find(|m| m.set == view.owner.set);
    // Of this primary in an earlier life: what it tells of the data is worth nothing, but nobody else wrote it.
    let former = view.markers.iter().filter(mirror).find(|m| m.of == view.owner.of);
    let foreign = view.markers.iter().any(|m| m.is_foreign(view.owner));
    let sole = match mine.or(former) {
        _ if view.claimed => true,
        _ if foreign || view.shared => false,
        Some(marker) => marker.sole,
        // What is there already is this sidecar's doing, for another primary.
        None if view.markers.iter().any(|m| m.set != view.owner.set && view.owner.sets.contains(&m.set)) => {
            true
        }
        None => view.same_process.unwrap_or(view.empty),
    };
    let way = match mine {
        _ if view.full => Way::Full,
        // Emptied behind its marker's back (by FLUSHALL, or a file that was lost).
        _ if view.empty => Way::Full,
        Some(marker) => Way::Since(marker.generation),
        // Taken away by FUNCTION FLUSH, or gone with the data when it was another server's replica for a while.
        None => Way::Full,
    };
    Decision { way, sole }
}

/// Which of the two is being looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Keys that the mirror may lack.
    Primary,
    /// Keys that the mirror may have too many.
    Mirror,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask which databases have keys.
    Keyspace(Side),
    /// Make sure that nobody else has begun to write to the mirror.
    Markers,
    /// Ask another member what it has marked as perhaps not known to this one.
    Marks,
    /// The next page of a database.
    Scan(Side, u16, u64),
    /// Whether the primary has the keys of a page of the mirror's; the cursor is that of the next page.
    Check(u16, u64),
    /// All was looked through.
    Over,
}

/// A resync in course.
#[derive(Debug)]
pub struct Resync {
    /// No other resync has this number.
    pub id: u64,
    /// The position of the log at which it begins: copies that were asked for before are too old.
    pub begins: u64,
    /// What may differ.
    pub scope: Scope,
    /// Every key is looked at.
    pub full: bool,
    /// Nobody else writes to the mirror. Otherwise only what it lacks is added.
    pub sole: bool,
    /// A question has no answer yet.
    pub asked: bool,
    /// None is asked before then, milliseconds: the last one was refused.
    pub ask_at: u64,
    /// Keys seen, and how many there are about.
    pub done: u64,
    /// See `done`.
    pub total: u64,
    /// When everything had been looked at, milliseconds; 0: not yet.
    pub over_ms: u64,
    /// The end of the log at that time: what was written before may have been found as it was then.
    pub ends: u64,
    /// When it began, milliseconds.
    pub since_ms: u64,
    /// Copies when it began.
    pub copied_before: u64,
    /// What comes next.
    pub step: Step,
    /// Keys of the mirror's page that is being checked.
    pub page: Vec<Box<[u8]>>,
    /// Databases still to be looked through on this side.
    left: Vec<u16>,
}

impl Resync {
    /// From the beginning.
    pub fn new(id: u64, scope: Scope, sole: bool, now_ms: u64, copied_before: u64) -> Self {
        Self {
            id,
            begins: 0,
            over_ms: 0,
            ends: u64::MAX,
            full: scope.all,
            scope,
            sole,
            asked: false,
            ask_at: 0,
            done: 0,
            total: 0,
            since_ms: now_ms,
            copied_before,
            step: Step::Keyspace(Side::Primary),
            page: Vec::new(),
            left: Vec::new(),
        }
    }

    /// The way it is, in words.
    pub fn name(&self) -> &'static str {
        match (self.full, self.sole) {
            (false, true) => "buckets",
            (true, true) => "full",
            (false, false) => "buckets, add-only",
            (true, false) => "full, add-only",
        }
    }

    /// The databases of one side, with their keys.
    pub fn keyspace(&mut self, side: Side, dbs: &[(u16, u64)]) {
        self.asked = false;
        self.total += dbs.iter().map(|(_, keys)| keys).sum::<u64>();
        self.left = dbs.iter().map(|(db, _)| *db).collect();
        self.next_database(side);
    }

    /// A page was seen.
    pub fn count(&mut self, keys: u64) {
        self.done += keys;
        self.total = self.total.max(self.done);
    }

    /// A page was looked through.
    pub fn turn(&mut self, side: Side, db: u16, cursor: u64) {
        self.asked = false;
        self.page.clear();
        if cursor == 0 {
            self.next_database(side);
        } else {
            self.step = Step::Scan(side, db, cursor);
        }
    }

    /// A database cannot be looked through, or has been.
    pub fn next_database(&mut self, side: Side) {
        self.asked = false;
        self.step = match (self.left.pop(), side) {
            (Some(db), _) => Step::Scan(side, db, 0),
            // Nothing is taken away from a mirror that somebody else writes to.
            (None, Side::Primary) if self.sole => Step::Markers,
            (None, _) => Step::Over,
        };
    }

    /// The mirror's markers were read again.
    pub fn proceed(&mut self, sole: bool) {
        self.asked = false;
        self.sole &= sole;
        self.step = if self.sole { Step::Keyspace(Side::Mirror) } else { Step::Over };
    }

    /// Whether an effect at `position` may have met what is not found yet.
    pub fn may_meet(&self, position: u64) -> bool {
        self.is_looking() || position < self.ends
    }

    /// Whether keys are still looked for.
    pub fn is_looking(&self) -> bool {
        self.step != Step::Over
    }
}

/// The databases in a reply to `INFO keyspace`, with their keys.
pub fn databases(info: &str) -> Vec<(u16, u64)> {
    let line = |line: &str| {
        let (db, rest) = line.trim_end().strip_prefix("db")?.split_once(':')?;
        let keys = rest.split(',').find_map(|field| field.strip_prefix("keys="))?;
        Some((db.parse().ok()?, keys.parse().ok()?))
    };
    info.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: Marker =
        Marker { set: 1, part: Part::Mirror, of: 9, generation: 5, partial: false, sole: true };

    static OWNER: std::sync::LazyLock<Owner> =
        std::sync::LazyLock::new(|| Owner { set: 1, of: 9, sets: vec![1, 7] });

    fn view(markers: &[Marker]) -> View<'_> {
        View {
            owner: &OWNER,
            markers,
            same_process: None,
            empty: false,
            shared: false,
            claimed: false,
            full: false,
        }
    }

    fn decision(way: Way, sole: bool) -> Decision {
        Decision { way, sole }
    }

    #[test]
    fn a_marker_tells_what_is_lacking() {
        assert_eq!(decide(&view(&[MINE])), decision(Way::Since(5), true));
        assert_eq!(decide(&View { full: true, ..view(&[MINE]) }), decision(Way::Full, true));
        assert_eq!(decide(&View { empty: true, ..view(&[MINE]) }), decision(Way::Full, true));
    }

    #[test]
    fn a_process_that_is_known_needs_no_marker() {
        let known = View { same_process: Some(true), ..view(&[]) };
        assert_eq!(decide(&known), decision(Way::Full, true));
        let other = Marker { set: 2, of: 8, ..MINE };
        assert_eq!(decide(&View { markers: &[other], ..known }), decision(Way::Full, false));
    }

    #[test]
    fn what_is_not_ours_is_not_overwritten() {
        let other = Marker { set: 2, of: 8, ..MINE };
        assert_eq!(decide(&view(&[])), decision(Way::Full, false), "data of unknown origin");
        assert_eq!(decide(&View { empty: true, ..view(&[]) }), decision(Way::Full, true));
        assert_eq!(decide(&view(&[other])), decision(Way::Full, false));
        assert_eq!(decide(&view(&[MINE, other])), decision(Way::Since(5), false));
        assert_eq!(decide(&View { empty: true, ..view(&[other]) }), decision(Way::Full, false));
        assert_eq!(decide(&View { shared: true, ..view(&[MINE]) }), decision(Way::Since(5), false));
        let shared = Marker { sole: false, ..MINE };
        assert_eq!(decide(&view(&[shared])), decision(Way::Since(5), false));
        let sister = Marker { set: 7, of: 8, ..MINE };
        assert_eq!(
            decide(&view(&[sister])),
            decision(Way::Full, true),
            "the mirror of two primaries of ours"
        );
        let former = Marker { set: 2, ..MINE };
        assert_eq!(decide(&view(&[former])), decision(Way::Full, true), "its own, of an earlier life");
        let primary = Marker { part: Part::Primary, ..MINE };
        assert_eq!(decide(&view(&[primary])), decision(Way::Full, false), "it was the primary itself");
        assert_eq!(decide(&View { claimed: true, full: true, ..view(&[other]) }), decision(Way::Full, true));
    }

    #[test]
    fn databases_are_read() {
        let info = "# Keyspace\r\ndb0:keys=5,expires=1,avg_ttl=0\r\ndb12:keys=7,expires=0,avg_ttl=0\r\n";
        assert_eq!(databases(info), [(0, 5), (12, 7)]);
        assert_eq!(databases("# Keyspace\r\n"), []);
    }

    #[test]
    fn both_sides_are_looked_through() {
        let mut resync = Resync::new(1, Scope::everything(), true, 0, 0);
        resync.keyspace(Side::Primary, &[(0, 10), (3, 1)]);
        assert_eq!(resync.step, Step::Scan(Side::Primary, 3, 0));
        resync.turn(Side::Primary, 3, 0);
        assert_eq!(resync.step, Step::Scan(Side::Primary, 0, 0));
        resync.turn(Side::Primary, 0, 17);
        assert_eq!(resync.step, Step::Scan(Side::Primary, 0, 17));
        resync.turn(Side::Primary, 0, 0);
        assert_eq!(resync.step, Step::Markers);
        resync.proceed(true);
        resync.keyspace(Side::Mirror, &[]);
        assert!(!resync.is_looking());
        let mut gentle = Resync::new(2, Scope::everything(), true, 0, 0);
        gentle.keyspace(Side::Primary, &[]);
        gentle.proceed(false);
        assert!(!gentle.is_looking() && !gentle.sole);
    }
}
