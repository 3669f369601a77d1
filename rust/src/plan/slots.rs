//! Who owns which hash slot of a Redis Cluster, and who else may be read from.

use smallvec::SmallVec;

use super::spec::{ReadPolicy, SlotRange};
use crate::command::slot::{SLOTS, slot};

/// The slot belongs to nobody that is known.
const NOBODY: u16 = u16::MAX;

/// Who has some slots.
#[derive(Clone, Debug)]
struct Owners {
    master: u16,
    replicas: SmallVec<[u16; 3]>,
}

/// The slot map.
#[derive(Clone, Debug)]
pub struct Slots {
    endpoints: usize,
    /// For each slot an index of `owners`, or [`NOBODY`].
    table: Vec<u16>,
    owners: Vec<Owners>,
    reads: ReadPolicy,
}

impl Slots {
    /// The map of a cluster with so many endpoints. An error names a range that makes no sense.
    pub fn new(ranges: &[SlotRange], endpoints: usize, reads: ReadPolicy) -> Result<Self, String> {
        let mut map = Self { endpoints, table: vec![NOBODY; usize::from(SLOTS)], owners: Vec::new(), reads };
        for range in ranges {
            let known = |i: &u16| usize::from(*i) < endpoints;
            let all_known = known(&range.master) && range.replicas.iter().all(known);
            let slots = map.table.get_mut(usize::from(range.first)..=usize::from(range.last));
            let (true, Some(slots)) = (all_known && range.first <= range.last, slots) else {
                return Err(format!(
                    "slots {}-{} are of no endpoint, or do not exist",
                    range.first, range.last
                ));
            };
            let same = |o: &Owners| o.master == range.master && o.replicas[..] == range.replicas[..];
            let at = map.owners.iter().position(same).unwrap_or_else(|| {
                map.owners
                    .push(Owners { master: range.master, replicas: SmallVec::from_slice(&range.replicas) });
                map.owners.len() - 1
            });
            slots.fill(at as u16);
        }
        Ok(map)
    }

    /// The endpoint that has a key. Of a slot that nobody is known to have any node tells where it is.
    #[inline]
    pub fn pick(&self, key: &[u8]) -> Option<usize> {
        let master = self.owners_of(slot(key)).map(|o| usize::from(o.master));
        master.or_else(|| (self.endpoints > 0).then_some(0))
    }

    /// The endpoint that a key is read from. `salt` spreads readers over those that may be; the same reader stays with
    /// one of them, so that it sees no older value after a newer one while they stay up.
    pub fn pick_read(&self, key: &[u8], salt: usize, is_up: impl Fn(usize) -> bool) -> Option<usize> {
        let slot = slot(key);
        let Some(owners) = self.owners_of(slot) else { return self.pick(key) };
        let master = usize::from(owners.master);
        let replica = || {
            let up: SmallVec<[usize; 4]> =
                owners.replicas.iter().map(|i| usize::from(*i)).filter(|i| is_up(*i)).collect();
            up.get((salt + usize::from(slot)) % up.len().max(1)).copied()
        };
        match self.reads {
            ReadPolicy::Master => Some(master),
            ReadPolicy::PreferMaster if is_up(master) => Some(master),
            ReadPolicy::PreferMaster | ReadPolicy::PreferReplica => replica().or(Some(master)),
            ReadPolicy::Replica => replica().or_else(|| owners.replicas.first().map(|i| usize::from(*i))),
            ReadPolicy::Any => {
                let ups = owners.replicas.iter().filter(|i| is_up(usize::from(**i))).count();
                let masters_turn = (salt + usize::from(slot)) % (ups + 1) == ups && is_up(master);
                if masters_turn { Some(master) } else { replica().or(Some(master)) }
            }
        }
    }

    /// Whether anything is ever read from a replica.
    pub fn reads_replicas(&self) -> bool {
        self.reads != ReadPolicy::Master
    }

    /// Whether an endpoint has keys of its own. While no map is known, the first one stands for all.
    pub fn is_master(&self, endpoint: usize) -> bool {
        if self.owners.is_empty() {
            return endpoint == 0;
        }
        self.owners.iter().any(|o| usize::from(o.master) == endpoint)
    }

    fn owners_of(&self, slot: u16) -> Option<&Owners> {
        self.owners.get(usize::from(*self.table.get(usize::from(slot))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16, master: u16, replicas: &[u16]) -> SlotRange {
        SlotRange { first, last, master, replicas: replicas.to_vec() }
    }

    fn halves(reads: ReadPolicy) -> Slots {
        let ranges = [range(0, 8191, 0, &[2]), range(8192, 16_383, 1, &[3, 4])];
        Slots::new(&ranges, 5, reads).expect("valid")
    }

    #[test]
    fn a_key_is_at_the_master_of_its_slot() {
        let map = halves(ReadPolicy::Master);
        assert_eq!(map.pick(b"foo"), Some(1)); // slot 12182
        assert_eq!(map.pick(b"user1000"), Some(0)); // slot 3443
        assert_eq!(map.pick(b"x{user1000}"), Some(0));
        assert_eq!((0..5).filter(|i| map.is_master(*i)).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_slot_of_nobody_is_asked_for_anywhere() {
        let map = Slots::new(&[range(0, 100, 1, &[])], 2, ReadPolicy::Replica).expect("valid");
        assert_eq!(map.pick(b"foo"), Some(0));
        assert_eq!(map.pick_read(b"foo", 7, |_| true), Some(0));
        assert_eq!(Slots::new(&[], 0, ReadPolicy::Any).expect("valid").pick(b"foo"), None);
    }

    #[test]
    fn who_is_read_from() {
        let read = |policy, up: &[usize], salt| halves(policy).pick_read(b"foo", salt, |i| up.contains(&i));
        let all: &[usize] = &[0, 1, 2, 3, 4];
        assert_eq!(read(ReadPolicy::Master, all, 0), Some(1));
        assert_eq!(read(ReadPolicy::PreferMaster, all, 0), Some(1));
        assert_eq!(read(ReadPolicy::PreferMaster, &[4], 0), Some(4));
        assert_eq!(read(ReadPolicy::PreferMaster, &[], 0), Some(1));
        assert_eq!(
            (read(ReadPolicy::Replica, all, 0), read(ReadPolicy::Replica, all, 1)),
            (Some(3), Some(4))
        );
        assert_eq!(read(ReadPolicy::Replica, &[1, 4], 0), Some(4));
        assert_eq!(read(ReadPolicy::Replica, &[1], 0), Some(3), "never the master");
        assert_eq!(read(ReadPolicy::PreferReplica, &[1], 0), Some(1));
        let mut any: Vec<_> = (0..3).filter_map(|salt| read(ReadPolicy::Any, all, salt)).collect();
        any.sort_unstable();
        assert_eq!(any[0], 1);
        assert!(any[2] > 1, "{any:?}");
        assert_eq!(read(ReadPolicy::Any, &[3], 0), Some(3));
    }

    #[test]
    fn ranges_are_checked() {
        for wrong in
            [range(5, 4, 0, &[]), range(0, 16_384, 0, &[]), range(0, 1, 2, &[]), range(0, 1, 0, &[9])]
        {
            assert!(Slots::new(&[wrong], 2, ReadPolicy::Master).is_err());
        }
    }
}
