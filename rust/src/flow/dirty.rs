//! The dirty map of one replica: which buckets of keys may differ there. It never overflows, costs one store per write,
//! and, kept in a file's memory, survives the death of the process (the idea is DRBD's quick-sync bitmap).
//!
//! ```text
//! header │ bitmap of even generations │ bitmap of odd generations
//!          the current one takes the marks; the other holds those of the generations since `base`
//! ```
//!
//! A *generation* begins with a marker in the stream to the replica. A Redis that holds the marker of generation `g` has
//! every effect of the generations before it: what it may lack is marked in the maps of `g` and later.

use std::fmt;
use std::ops::DerefMut;

/// Buckets of keys.
pub const BUCKETS: usize = 1 << 20;
const BITMAP: usize = BUCKETS / 8;
const HEADER: usize = 4096;
/// Bytes of a map with its header.
pub const REGION_BYTES: usize = HEADER + 2 * BITMAP;

/// The bytes of a map: of a file that is mapped, or of the heap.
pub type Region = Box<dyn DerefMut<Target = [u8]> + Send>;

const MAGIC: &[u8; 8] = b"RDSHMAP1";
/// Fields of the header, by offset. Numbers are little-endian; each is stored at once, so that a process that dies leaves
/// the old one or the new one.
const NAMES: usize = 8;
const BOOT: usize = 16;
const SET: usize = 32;
const CHECK: usize = 40;
const GENERATION: usize = 48;
const BASE: usize = 56;
const PRIMARY_MARKED: usize = 64;
const ALL: usize = 72;
const FUNCTIONS: usize = 74;
/// The newest connections to the primary and to the mirror: a hash of the server's `run_id`, and its number for ours.
const CONNECTIONS: [usize; 2] = [80, 96];
/// Hashes of the `run_id` of the primary whose data was proven, of the mirror that has what its map says, and of the
/// primary whose data was doubted.
const RUNS: [usize; 3] = [112, 120, 136];
/// Which keys the routes gave the mirror.
const SHARE: usize = 128;
/// The mirror was this sidecar's alone.
const SOLE: usize = 78;
/// What was on the mirror before is not proven to be equal.
const UNPROVEN: usize = 79;
const CLEAN: usize = 76;
const SHARED: usize = 77;

/// What was found in a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Zeroes: it is new.
    Nothing,
    /// The map as it was left.
    Map,
    /// Not to be trusted; why.
    Untrusted(&'static str),
}

/// The bucket of a key. Part of the file's format: it must stay what it is.
#[inline]
pub fn bucket(db: u16, key: &[u8]) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = (u64::from(db) ^ ((key.len() as u64) << 16)).wrapping_mul(K);
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        hash = (hash.rotate_left(29) ^ word).wrapping_mul(K);
    }
    let mut word = 0;
    for &byte in chunks.remainder() {
        word = (word << 8) | u64::from(byte);
    }
    hash = (hash.rotate_left(29) ^ word).wrapping_mul(K);
    hash ^= hash >> 32;
    (hash.wrapping_mul(K) >> 44) as u32
}

/// The map.
pub struct DirtyMap {
    region: Region,
    /// Where the bitmap of the current generation begins.
    current_at: usize,
}

impl fmt::Debug for DirtyMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirtyMap").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

/// Keys that may differ, as they were marked at one moment.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Every key of every database.
    pub all: bool,
    /// The function libraries.
    pub functions: bool,
    bits: Box<[u8]>,
}

impl Scope {
    /// Everything.
    pub fn everything() -> Self {
        Self { all: true, functions: true, bits: Box::default() }
    }

    /// Whether a key is in it.
    #[inline]
    pub fn has(&self, db: u16, key: &[u8]) -> bool {
        self.all || {
            let n = bucket(db, key);
            self.bits.get((n / 8) as usize).is_some_and(|byte| byte & (1 << (n % 8)) != 0)
        }
    }

    /// A bit per bucket; empty where every key is in it.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// As it comes from another member. What is not of the right size is everything.
    pub fn read(all: bool, functions: bool, bits: &[u8]) -> Self {
        if bits.len() == BITMAP || (all && bits.is_empty()) {
            Self { all, functions, bits: bits.into() }
        } else {
            Self::everything()
        }
    }

    /// Add what is in another one.
    pub fn add(&mut self, other: &Self) {
        self.all |= other.all;
        self.functions |= other.functions;
        if self.bits.is_empty() {
            self.bits.clone_from(&other.bits);
        }
        for (mine, theirs) in self.bits.iter_mut().zip(&other.bits) {
            *mine |= theirs;
        }
    }

    /// Whether no key is in it.
    pub fn is_empty(&self) -> bool {
        !self.all && !self.functions && self.bits.iter().all(|byte| *byte == 0)
    }
}

impl DirtyMap {
    /// A map in memory, in which everything is dirty.
    pub fn in_memory(names: u64) -> Self {
        Self::open(Box::new(vec![0; REGION_BYTES]), names, [0; 16]).0
    }

    /// Take a region over. Unless it holds the map of this replica, left by a process of this boot or closed cleanly,
    /// everything counts as dirty.
    pub fn open(region: Region, names: u64, boot: [u8; 16]) -> (Self, Found) {
        let mut map = Self { region, current_at: HEADER };
        if map.region.len() < REGION_BYTES {
            map.region = Box::new(vec![0; REGION_BYTES]);
        }
        let found = map.examine(names, boot);
        if found == Found::Map {
            map.region[CLEAN] = 0;
        } else {
            map.region.fill(0);
            map.region[..8].copy_from_slice(MAGIC);
            map.put(NAMES, names);
            map.put(GENERATION, 1);
            map.region[ALL] = 1;
            map.region[FUNCTIONS] = 1;
        }
        map.current_at = HEADER + map.current() * BITMAP;
        map.region[BOOT..BOOT + 16].copy_from_slice(&boot);
        map.seal();
        (map, found)
    }

    fn examine(&self, names: u64, boot: [u8; 16]) -> Found {
        if self.region[..HEADER].iter().all(|byte| *byte == 0) {
            return Found::Nothing;
        }
        if &self.region[..8] != MAGIC {
            return Found::Untrusted("it is not a dirty map, or one of another version");
        }
        let counts = 1..1 << 62; // the high half is a term
        if self.get(CHECK) != self.check()
            || !counts.contains(&self.generation())
            || self.base() > self.generation()
        {
            return Found::Untrusted("its header is damaged");
        }
        if self.get(NAMES) != names {
            return Found::Untrusted("it belongs to another primary and mirror");
        }
        if self.region[BOOT..BOOT + 16] != boot && self.region[CLEAN] == 0 {
            return Found::Untrusted("the machine was restarted and redisha had not ended cleanly");
        }
        Found::Map
    }

    /// Take over what was marked in another map of the same replica.
    pub fn merge(&mut self, other: &Self) {
        self.mark_scope(&other.scope(false));
    }

    /// All of this may differ.
    pub fn mark_scope(&mut self, scope: &Scope) {
        if scope.all {
            self.mark_all();
        }
        if scope.functions {
            self.mark_functions();
        }
        let at = self.current_at();
        for (mine, theirs) in self.region[at..at + BITMAP].iter_mut().zip(&scope.bits) {
            *mine |= theirs;
        }
    }

    /// A key is about to be written.
    #[inline]
    pub fn mark(&mut self, bucket: u32) {
        let at = self.current_at() + (bucket / 8) as usize;
        if let Some(byte) = self.region.get_mut(at) {
            *byte |= 1 << (bucket % 8);
        }
    }

    /// Keys that cannot be named are about to be written.
    pub fn mark_all(&mut self) {
        let at = ALL + self.current();
        self.region[at] = 1;
    }

    /// Function libraries are about to be changed.
    pub fn mark_functions(&mut self) {
        let at = FUNCTIONS + self.current();
        self.region[at] = 1;
    }

    /// The process of the primary (0) whose data was proven, or of the mirror (1) of which the map tells: whatever became
    /// of its marker, it has lost nothing.
    pub fn run(&self, side: usize) -> u64 {
        self.get(RUNS[side % 3])
    }

    /// See [`Self::run`].
    pub fn set_run(&mut self, side: usize, run: u64) {
        self.put(RUNS[side % 3], run);
    }

    /// Whether that mirror was this sidecar's alone.
    pub fn is_sole(&self) -> bool {
        self.region[SOLE] != 0
    }

    /// See [`Self::is_sole`].
    pub fn set_sole(&mut self, sole: bool) {
        self.region[SOLE] = u8::from(sole);
    }

    /// Whether a resync could only add.
    pub fn is_unproven(&self) -> bool {
        self.region[UNPROVEN] != 0
    }

    /// See [`Self::is_unproven`].
    pub fn set_unproven(&mut self, unproven: bool) {
        self.region[UNPROVEN] = u8::from(unproven);
    }

    /// Which keys the routes gave the mirror, as a hash; 0: not known.
    pub fn share(&self) -> u64 {
        self.get(SHARE)
    }

    /// See [`Self::share`].
    pub fn set_share(&mut self, share: u64) {
        self.put(SHARE, share);
    }

    /// Nobody marks from now on.
    pub fn abandon(&mut self) {
        self.mark_all();
        self.mark_functions();
    }

    /// The generation that marks belong to now.
    pub fn generation(&self) -> u64 {
        self.get(GENERATION)
    }

    /// The first generation whose marks are kept.
    pub fn base(&self) -> u64 {
        self.get(BASE)
    }

    /// The identity of the primary's data; 0: not known yet.
    pub fn set(&self) -> u64 {
        self.get(SET)
    }

    /// The marks are about this data.
    pub fn set_set(&mut self, set: u64) {
        self.put(SET, set);
        self.seal();
    }

    /// The newest generation whose marker the primary has acknowledged.
    pub fn primary_marked(&self) -> u64 {
        self.get(PRIMARY_MARKED)
    }

    /// The primary has acknowledged a marker.
    pub fn set_primary_marked(&mut self, generation: u64) {
        self.put(PRIMARY_MARKED, generation);
    }

    /// Somebody else writes to the mirror too: it was seen once, and is believed until an operator says otherwise.
    pub fn is_shared(&self) -> bool {
        self.region[SHARED] != 0
    }

    /// See [`Self::is_shared`].
    pub fn set_shared(&mut self, shared: bool) {
        self.region[SHARED] = u8::from(shared);
    }

    /// Begin a generation. `caught_up`: the replica has the marker of the one that ends now, so that the marks before
    /// that one are not needed any more.
    pub fn advance(&mut self, generation: u64, caught_up: bool) {
        let (current, old) = (self.current(), 1 - self.current());
        if generation % 2 == current as u64 {
            // The number skipped one (another replica's map was ahead): fold both into what becomes the old one.
            self.fold(old, current);
            self.put(GENERATION, generation);
            return self.clear(current);
        }
        if caught_up {
            // The old bitmap becomes the current one, empty. The marks go last but one: a process that dies in between
            // leaves a map that knows less of the past, never one with too few marks.
            let base = self.generation();
            self.put(BASE, base);
            self.clear(old);
            self.put(GENERATION, generation);
        } else {
            self.fold(current, old);
            self.clear(old);
            self.put(GENERATION, generation);
        }
    }

    /// Whoever has the current generation's marker has all that was marked before: forget it. An older marker then tells
    /// nothing any more.
    pub fn forget_old(&mut self) {
        let base = self.generation();
        self.put(BASE, base);
        self.clear(1 - self.current());
    }

    /// Add the marks of one bitmap to another.
    fn fold(&mut self, into: usize, from: usize) {
        let (low, high) = self.region[HEADER..].split_at_mut(BITMAP);
        let (into_bits, from_bits) = if into == 0 { (low, &*high) } else { (high, &*low) };
        for (mine, theirs) in into_bits.iter_mut().zip(from_bits) {
            *mine |= theirs;
        }
        for field in [ALL, FUNCTIONS] {
            self.region[field + into] |= self.region[field + from];
        }
    }

    fn clear(&mut self, which: usize) {
        let at = HEADER + which * BITMAP;
        self.region[at..at + BITMAP].fill(0);
        self.region[ALL + which] = 0;
        self.region[FUNCTIONS + which] = 0;
    }

    /// What a Redis may lack that holds the marker of `generation`; `None`: that is not known any more.
    pub fn since(&self, generation: u64) -> Option<Scope> {
        (self.base()..=self.generation())
            .contains(&generation)
            .then(|| self.scope(generation < self.generation()))
    }

    /// Everything that is marked.
    pub fn marked(&self) -> Scope {
        self.scope(true)
    }

    /// The marks of the current generation, or of both.
    fn scope(&self, both: bool) -> Scope {
        let (current, old) = (self.current(), 1 - self.current());
        let at = |which: usize| HEADER + which * BITMAP;
        let mut bits: Box<[u8]> = self.region[at(current)..at(current) + BITMAP].into();
        let mut all = self.region[ALL + current] != 0;
        let mut functions = self.region[FUNCTIONS + current] != 0;
        if both {
            for (mine, theirs) in bits.iter_mut().zip(&self.region[at(old)..at(old) + BITMAP]) {
                *mine |= theirs;
            }
            all |= self.region[ALL + old] != 0;
            functions |= self.region[FUNCTIONS + old] != 0;
        }
        Scope { all, functions, bits }
    }

    /// Whether everything is marked in the generations before the current one.
    pub fn had_all(&self) -> bool {
        self.region[ALL + 1 - self.current()] != 0
    }

    /// Dirty buckets of the current generation.
    pub fn fresh(&self) -> u64 {
        let at = self.current_at();
        let flags = self.region[ALL + self.current()] | self.region[FUNCTIONS + self.current()];
        count(&self.region[at..at + BITMAP]) + u64::from(flags)
    }

    /// Dirty buckets of all generations that are kept: what would be looked at, were the newest marker lost.
    pub fn dirty(&self) -> u64 {
        let scope = self.scope(true);
        if scope.all { BUCKETS as u64 } else { count(&scope.bits) }
    }

    /// The newest connection to the primary (0) or the mirror (1), also that of a process before this one.
    pub fn connection(&self, side: usize) -> (u64, u64) {
        let at = CONNECTIONS[side & 1];
        (self.get(at), self.get(at + 8))
    }

    /// See [`Self::connection`].
    pub fn set_connection(&mut self, side: usize, run: u64, number: u64) {
        let at = CONNECTIONS[side & 1];
        self.put(at + 8, 0); // never another server's number
        self.put(at, run);
        self.put(at + 8, number);
    }

    /// Nothing is marked any more: another process may believe the map after the next boot, too.
    pub fn close(&mut self) {
        self.region[CLEAN] = 1;
    }

    #[inline]
    fn current(&self) -> usize {
        usize::from(self.region[GENERATION] & 1)
    }

    #[inline]
    fn current_at(&self) -> usize {
        self.current_at
    }

    fn get(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.region[at..at + 8].try_into().unwrap_or_default())
    }

    fn put(&mut self, at: usize, value: u64) {
        self.region[at..at + 8].copy_from_slice(&value.to_le_bytes());
        if at == GENERATION {
            self.current_at = HEADER + self.current() * BITMAP;
        }
    }

    /// What identifies the map, and does not change with each generation.
    fn check(&self) -> u64 {
        xxhash_rust::xxh64::xxh64(&self.region[..CHECK], 1)
    }

    fn seal(&mut self) {
        let check = self.check();
        self.put(CHECK, check);
    }
}

fn count(bits: &[u8]) -> u64 {
    let words = bits.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap_or_default()));
    words.map(|word| u64::from(word.count_ones())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        Box::new(vec![0; REGION_BYTES])
    }

    fn fresh() -> DirtyMap {
        let mut map = DirtyMap::open(region(), 7, [1; 16]).0;
        map.advance(2, true);
        map.advance(3, true);
        map
    }

    fn marked(map: &DirtyMap, generation: u64, key: &[u8]) -> Option<bool> {
        map.since(generation).map(|scope| scope.has(0, key))
    }

    #[test]
    fn a_new_map_is_all_dirty() {
        let (map, found) = DirtyMap::open(region(), 7, [1; 16]);
        assert_eq!(found, Found::Nothing);
        assert!(map.since(0).is_some_and(|scope| scope.all && scope.functions));
    }

    #[test]
    fn marks_are_kept_for_two_generations() {
        let mut map = fresh();
        assert_eq!((map.generation(), map.base()), (3, 2));
        map.mark(bucket(0, b"a"));
        assert_eq!(
            (marked(&map, 3, b"a"), marked(&map, 2, b"a"), marked(&map, 1, b"a")),
            (Some(true), Some(true), None)
        );
        map.advance(4, true);
        assert_eq!(
            (marked(&map, 4, b"a"), marked(&map, 3, b"a"), marked(&map, 2, b"a")),
            (Some(false), Some(true), None)
        );
        map.advance(5, true);
        assert_eq!((marked(&map, 4, b"a"), marked(&map, 3, b"a")), (Some(false), None));
    }

    #[test]
    fn what_was_before_a_full_resync_is_forgotten_as_soon_as_it_is_acknowledged() {
        let mut map = DirtyMap::open(region(), 7, [1; 16]).0;
        map.advance(2, false);
        map.mark(bucket(0, b"a"));
        assert!(map.had_all() && marked(&map, 1, b"b") == Some(true));
        map.forget_old();
        assert!(!map.had_all());
        assert_eq!([marked(&map, 2, b"a"), marked(&map, 2, b"b")], [Some(true), Some(false)]);
        assert_eq!(marked(&map, 1, b"a"), None);
        map.advance(3, false);
        assert_eq!([marked(&map, 2, b"a"), marked(&map, 2, b"b")], [Some(true), Some(false)]);
    }

    #[test]
    fn a_replica_that_lags_keeps_all_its_marks() {
        let mut map = fresh();
        for (generation, key) in [(4, b"a"), (5, b"b"), (6, b"c"), (8, b"d"), (11, b"e")] {
            map.mark(bucket(0, key));
            map.advance(generation, false);
        }
        assert_eq!((map.generation(), map.base()), (11, 2));
        for key in [b"a", b"b", b"c", b"d", b"e"] {
            assert_eq!(marked(&map, 3, key), Some(true));
        }
        map.mark_all();
        assert!(map.since(11).is_some_and(|scope| scope.all));
    }

    #[test]
    fn a_map_is_believed_only_where_it_belongs() {
        let open = |bytes: &[u8], names, boot| DirtyMap::open(Box::new(bytes.to_vec()), names, boot).1;
        let mut map = fresh();
        map.set_set(99);
        let bytes = map.region.to_vec();
        assert_eq!(open(&bytes, 7, [1; 16]), Found::Map);
        assert!(matches!(open(&bytes, 8, [1; 16]), Found::Untrusted(_)));
        assert!(matches!(open(&bytes, 7, [2; 16]), Found::Untrusted(_)), "another boot");
        map.close();
        let closed = map.region.to_vec();
        let (map, found) = DirtyMap::open(Box::new(closed), 7, [2; 16]);
        assert_eq!((found, map.set()), (Found::Map, 99), "closed cleanly");
        for damage in [3, NAMES, SET + 1, CHECK, GENERATION + 7] {
            let mut torn = bytes.clone();
            torn[damage] ^= 0xff;
            assert!(matches!(open(&torn, 7, [1; 16]), Found::Untrusted(_)), "damaged at {damage}");
        }
        assert!(matches!(DirtyMap::open(Box::new(bytes[..100].to_vec()), 7, [1; 16]).1, Found::Nothing));
    }

    #[test]
    fn keys_spread_over_the_buckets() {
        let mut map = fresh();
        for i in 0..100_000 {
            map.mark(bucket(0, format!("key:{i:012}").as_bytes()));
        }
        // 2^20 · (1 − e^(−100000 / 2^20)) = 95,366 are expected.
        assert!((94_800..96_000).contains(&map.fresh()), "{}", map.fresh());
        assert_ne!(bucket(0, b"a"), bucket(1, b"a"));
        assert_eq!(bucket(3, b"key:000000000001"), 496_582, "the format");
    }
}
