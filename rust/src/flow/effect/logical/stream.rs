//! A stream out of `XINFO STREAM key FULL COUNT 0`: entries, last id, counters, groups, consumers, and what is pending.
//!
//! Not copied, as no command sets it: when a consumer was last seen or active (it is when the copy ran), and what is
//! pending although its entry was deleted or trimmed (`XCLAIM` passes over it; its group counts fewer pending entries).

use super::{Commands, ELEMENTS_PER_COMMAND, is_aggregate};
use crate::resp::Reply;

/// The fields that are needed. What a version does not tell is `None`, what it does not know is nil.
#[derive(Clone, Copy, Debug, Default)]
struct Info<'a> {
    last_id: Option<Reply<'a>>,
    /// Since 7.0, with the next one.
    added: Option<Reply<'a>>,
    max_deleted: Option<Reply<'a>>,
    entries: Option<Reply<'a>>,
    groups: Option<Reply<'a>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Group<'a> {
    name: Option<Reply<'a>>,
    last_id: Option<Reply<'a>>,
    /// Since 7.0; nil where it cannot be told.
    read: Option<Reply<'a>>,
    consumers: Option<Reply<'a>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Consumer<'a> {
    name: Option<Reply<'a>>,
    pending: Option<Reply<'a>>,
}

/// The commands that fill a stream that is not there.
pub(super) fn fill(info: Reply<'_>, commands: &mut Commands<'_>) -> Option<()> {
    let key = commands.key;
    let mut stream = Info::default();
    each_field(info, |name, value| match name {
        b"last-generated-id" => stream.last_id = Some(value),
        b"entries-added" => stream.added = Some(value),
        b"max-deleted-entry-id" => stream.max_deleted = Some(value),
        b"entries" => stream.entries = Some(value),
        b"groups" => stream.groups = Some(value),
        _ => {}
    })?;
    let entries = stream.entries.filter(|found| is_aggregate(*found))?;
    for entry in entries.elements() {
        add(entry, commands)?;
    }
    if entries.elem_count() == 0 {
        // Makes an empty stream. What it adds is trimmed and not deleted, so that no greatest deleted id remains.
        commands.add(&[b"XADD", key, b"MAXLEN", b"0", b"0-1", b"x", b"y"]);
    }
    let last_id = stream.last_id?.text()?;
    match (stream.added.and_then(Reply::integer), stream.max_deleted.and_then(Reply::text)) {
        (Some(added), Some(max_deleted)) if commands.has_counters => {
            let mut digits = itoa::Buffer::new();
            let added = digits.format(added).as_bytes();
            commands.add(&[b"XSETID", key, last_id, b"ENTRIESADDED", added, b"MAXDELETEDID", max_deleted]);
        }
        _ => commands.add(&[b"XSETID", key, last_id]),
    }
    // Behind `XSETID`: a newer Redis takes no group that has read more than was added.
    for group in stream.groups.filter(|found| is_aggregate(*found))?.elements() {
        fill_group(group, commands)?;
    }
    Some(())
}

fn add(entry: Reply<'_>, commands: &mut Commands<'_>) -> Option<()> {
    let mut parts = entry.elements();
    let (id, fields) = (parts.next()?.text()?, parts.next()?);
    let count = fields.elem_count();
    if count == 0 || count % 2 == 1 {
        return None;
    }
    commands.begin(b"XADD", 3 + count);
    commands.args(&[id]);
    for field in fields.elements() {
        commands.args(&[field.text()?]);
    }
    Some(())
}

fn fill_group(group: Reply<'_>, commands: &mut Commands<'_>) -> Option<()> {
    let key = commands.key;
    let mut found = Group::default();
    each_field(group, |name, value| match name {
        b"name" => found.name = Some(value),
        b"last-delivered-id" => found.last_id = Some(value),
        b"entries-read" => found.read = Some(value),
        b"consumers" => found.consumers = Some(value),
        _ => {}
    })?;
    let (name, last_id) = (found.name?.text()?, found.last_id?.text()?);
    match found.read.and_then(Reply::integer) {
        Some(read) if commands.has_counters => {
            let mut digits = itoa::Buffer::new();
            let read = digits.format(read).as_bytes();
            commands.add(&[b"XGROUP", b"CREATE", key, name, last_id, b"ENTRIESREAD", read]);
        }
        _ => commands.add(&[b"XGROUP", b"CREATE", key, name, last_id]),
    }
    for consumer in found.consumers.filter(|found| is_aggregate(*found))?.elements() {
        let mut found = Consumer::default();
        each_field(consumer, |name, value| match name {
            b"name" => found.name = Some(value),
            b"pending" => found.pending = Some(value),
            _ => {}
        })?;
        let consumer = found.name?.text()?;
        commands.add(&[b"XGROUP", b"CREATECONSUMER", key, name, consumer]);
        claim_all([name, consumer], found.pending.filter(|found| is_aggregate(*found))?, commands)?;
    }
    Some(())
}

/// What is pending for a consumer. Entries delivered together, as `XREADGROUP COUNT` does it, are claimed together.
fn claim_all(whom: [&[u8]; 2], pending: Reply<'_>, commands: &mut Commands<'_>) -> Option<()> {
    let (mut ids, mut together) = (Vec::new(), (0, 0));
    for entry in pending.elements() {
        let mut parts = entry.elements();
        let id = parts.next()?.text()?;
        let delivered = (parts.next()?.integer()?, parts.next()?.integer()?);
        if delivered != together || ids.len() == ELEMENTS_PER_COMMAND {
            claim(whom, &ids, together, commands);
            ids.clear();
            together = delivered;
        }
        ids.push(id);
    }
    claim(whom, &ids, together, commands);
    Some(())
}

/// `FORCE` makes them pending although nobody read them, `JUSTID` spares the reply their content.
fn claim(whom: [&[u8]; 2], ids: &[&[u8]], (at, times): (i64, i64), commands: &mut Commands<'_>) {
    if ids.is_empty() {
        return;
    }
    let (mut at_digits, mut times_digits) = (itoa::Buffer::new(), itoa::Buffer::new());
    let (at, times) = (at_digits.format(at).as_bytes(), times_digits.format(times).as_bytes());
    commands.begin(b"XCLAIM", 2 + whom.len() + 1 + ids.len() + 6);
    commands.args(&whom);
    commands.args(&[b"0"]);
    commands.args(ids);
    commands.args(&[b"TIME", at, b"RETRYCOUNT", times, b"FORCE", b"JUSTID"]);
}

/// Names and values of a map, in RESP2 one behind the other. `None` if a name is not text.
fn each_field<'a>(map: Reply<'a>, mut look: impl FnMut(&[u8], Reply<'a>)) -> Option<()> {
    let mut elements = map.elements();
    while let Some(name) = elements.next() {
        look(name.text()?, elements.next()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::super::testing::effect_of;

    /// What 7.0 answers for a stream of four entries; a fifth was deleted, and the last id is set. One group has read
    /// three of them for two consumers, another has one that has read nothing.
    const MODERN: &str = "*3\r\n+stream\r\n:-1\r\n*18\r\n$6\r\nlength\r\n:4\r\n$15\r\nradix-tree-keys\r\n:1\r\n\
        $16\r\nradix-tree-nodes\r\n:2\r\n$17\r\nlast-generated-id\r\n$3\r\n9-9\r\n\
        $20\r\nmax-deleted-entry-id\r\n$3\r\n3-0\r\n$13\r\nentries-added\r\n:5\r\n\
        $23\r\nrecorded-first-entry-id\r\n$3\r\n1-1\r\n$7\r\nentries\r\n*4\r\n\
        *2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n*2\r\n$3\r\n1-2\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n\
        *2\r\n$3\r\n2-0\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n\
        *2\r\n$3\r\n4-0\r\n*4\r\n$1\r\nf\r\n$1\r\nv\r\n$1\r\ng\r\n$0\r\n\r\n$6\r\ngroups\r\n*2\r\n\
        *14\r\n$4\r\nname\r\n$1\r\ng\r\n$17\r\nlast-delivered-id\r\n$3\r\n2-0\r\n$12\r\nentries-read\r\n:3\r\n\
        $3\r\nlag\r\n$-1\r\n$9\r\npel-count\r\n:3\r\n$7\r\npending\r\n*3\r\n\
        *4\r\n$3\r\n1-1\r\n$1\r\nc\r\n:1700000000000\r\n:1\r\n*4\r\n$3\r\n1-2\r\n$1\r\nc\r\n:1700000000000\r\n:1\r\n\
        *4\r\n$3\r\n2-0\r\n$1\r\nd\r\n:1700000000005\r\n:3\r\n$9\r\nconsumers\r\n*2\r\n\
        *8\r\n$4\r\nname\r\n$1\r\nc\r\n$9\r\nseen-time\r\n:1795350147684\r\n$9\r\npel-count\r\n:2\r\n\
        $7\r\npending\r\n*2\r\n*3\r\n$3\r\n1-1\r\n:1700000000000\r\n:1\r\n*3\r\n$3\r\n1-2\r\n:1700000000000\r\n:1\r\n\
        *8\r\n$4\r\nname\r\n$1\r\nd\r\n$9\r\nseen-time\r\n:1795350147684\r\n$9\r\npel-count\r\n:1\r\n\
        $7\r\npending\r\n*1\r\n*3\r\n$3\r\n2-0\r\n:1700000000005\r\n:3\r\n\
        *14\r\n$4\r\nname\r\n$1\r\nh\r\n$17\r\nlast-delivered-id\r\n$3\r\n1-5\r\n$12\r\nentries-read\r\n$-1\r\n\
        $3\r\nlag\r\n$-1\r\n$9\r\npel-count\r\n:0\r\n$7\r\npending\r\n*0\r\n$9\r\nconsumers\r\n*1\r\n\
        *8\r\n$4\r\nname\r\n$4\r\nidle\r\n$9\r\nseen-time\r\n:1795350147683\r\n$9\r\npel-count\r\n:0\r\n\
        $7\r\npending\r\n*0\r\n";

    /// What 6.2 answers, with `TIME` behind it, for one with an expiry: one entry, a group without consumers.
    const OLD: &str = "*4\r\n+stream\r\n:2307094479274\r\n*12\r\n$6\r\nlength\r\n:1\r\n$15\r\nradix-tree-keys\r\n:1\r\n\
        $16\r\nradix-tree-nodes\r\n:2\r\n$17\r\nlast-generated-id\r\n$3\r\n1-1\r\n\
        $7\r\nentries\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n\
        $6\r\ngroups\r\n*1\r\n*10\r\n$4\r\nname\r\n$1\r\ng\r\n$17\r\nlast-delivered-id\r\n$3\r\n1-1\r\n\
        $9\r\npel-count\r\n:0\r\n$7\r\npending\r\n*0\r\n$9\r\nconsumers\r\n*0\r\n\
        *2\r\n$10\r\n1795350320\r\n$6\r\n726541\r\n";

    #[test]
    fn with_counters() {
        let expected = "MULTI; DEL k; \
            XADD k 1-1 f v; XADD k 1-2 f v; XADD k 2-0 f v; XADD k 4-0 f v g ; \
            XSETID k 9-9 ENTRIESADDED 5 MAXDELETEDID 3-0; \
            XGROUP CREATE k g 2-0 ENTRIESREAD 3; \
            XGROUP CREATECONSUMER k g c; \
            XCLAIM k g c 0 1-1 1-2 TIME 1700000000000 RETRYCOUNT 1 FORCE JUSTID; \
            XGROUP CREATECONSUMER k g d; \
            XCLAIM k g d 0 2-0 TIME 1700000000005 RETRYCOUNT 3 FORCE JUSTID; \
            XGROUP CREATE k h 1-5; \
            XGROUP CREATECONSUMER k h idle; \
            EXEC";
        assert_eq!(effect_of(Kind::Stream, true, MODERN), expected);
        let maps = MODERN
            .replace("*18\r\n", "%9\r\n")
            .replace("*14\r\n", "%7\r\n")
            .replace("*8\r\n", "%4\r\n")
            .replace("$-1\r\n", "_\r\n");
        assert_eq!(effect_of(Kind::Stream, true, &maps), expected);
    }

    #[test]
    fn without_counters() {
        let effect = effect_of(Kind::Stream, false, MODERN);
        assert!(effect.contains("; XSETID k 9-9; XGROUP CREATE k g 2-0; XGROUP CREATECONSUMER"), "{effect}");
        for has_counters in [true, false] {
            assert_eq!(
                effect_of(Kind::Stream, has_counters, OLD),
                "MULTI; DEL k; XADD k 1-1 f v; XSETID k 1-1; XGROUP CREATE k g 1-1; PEXPIREAT k 4102444800000; EXEC"
            );
        }
    }

    #[test]
    fn empty() {
        let reply = "*3\r\n+stream\r\n:-1\r\n*18\r\n$6\r\nlength\r\n:0\r\n$15\r\nradix-tree-keys\r\n:0\r\n\
            $16\r\nradix-tree-nodes\r\n:1\r\n$17\r\nlast-generated-id\r\n$3\r\n0-0\r\n\
            $20\r\nmax-deleted-entry-id\r\n$3\r\n0-0\r\n$13\r\nentries-added\r\n:0\r\n\
            $23\r\nrecorded-first-entry-id\r\n$3\r\n0-0\r\n$7\r\nentries\r\n*0\r\n$6\r\ngroups\r\n*0\r\n";
        assert_eq!(
            effect_of(Kind::Stream, true, reply),
            "MULTI; DEL k; XADD k MAXLEN 0 0-1 x y; XSETID k 0-0 ENTRIESADDED 0 MAXDELETEDID 0-0; EXEC"
        );
    }

    #[test]
    fn what_was_delivered_together_is_claimed_together() {
        let pending = |deliveries: &[(usize, i64, i64)]| {
            let all: usize = deliveries.iter().map(|(ids, ..)| ids).sum();
            let entries = deliveries
                .iter()
                .map(|(ids, at, times)| format!("*3\r\n$3\r\n1-1\r\n:{at}\r\n:{times}\r\n").repeat(*ids));
            format!("*{all}\r\n{}", entries.collect::<String>())
        };
        let with = |pending: &str| {
            let reply = format!(
                "*3\r\n+stream\r\n:-1\r\n*6\r\n+entries\r\n*0\r\n+last-generated-id\r\n+5-5\r\n+groups\r\n*1\r\n\
                 *6\r\n+name\r\n+g\r\n+last-delivered-id\r\n+5-5\r\n+consumers\r\n*1\r\n\
                 *4\r\n+name\r\n+c\r\n+pending\r\n{pending}"
            );
            let effect = effect_of(Kind::Stream, true, &reply);
            effect
                .split("; ")
                .filter(|line| line.starts_with("XCLAIM"))
                .map(|l| l.split(' ').count() - 11)
                .collect()
        };
        let claims = |deliveries: &[(usize, i64, i64)]| -> Vec<usize> { with(&pending(deliveries)) };
        assert_eq!(claims(&[]), [0; 0]);
        assert_eq!(claims(&[(3, 0, 0)]), [3]);
        assert_eq!(claims(&[(2, 7, 1), (1, 7, 2), (1, 8, 2), (1, 7, 1)]), [2, 1, 1, 1]);
        assert_eq!(claims(&[(1025, 7, 1), (2, 8, 1)]), [512, 512, 1, 2]);
    }

    #[test]
    fn what_is_not_there_is_not_taken_for_empty() {
        for (part, instead) in [
            ("last-generated-id", "LAST-GENERATED-ID"),
            ("$7\r\nentries\r\n*1\r\n", "$7\r\nEntries\r\n*1\r\n"),
            ("$6\r\ngroups\r\n", "$6\r\nGroups\r\n"),
            ("$9\r\nconsumers\r\n*0\r\n", "$9\r\nconsumers\r\n:0\r\n"),
            ("*2\r\n$1\r\nf\r\n$1\r\nv\r\n", "*1\r\n$1\r\nf\r\n"),
            ("*2\r\n$1\r\nf\r\n$1\r\nv\r\n", "*0\r\n"),
            ("*2\r\n$1\r\nf\r\n$1\r\nv\r\n", "*2\r\n$1\r\nf\r\n:1\r\n"),
            ("*2\r\n$1\r\nf\r\n$1\r\nv\r\n", "$-1\r\n"),
            ("$4\r\nname\r\n", "$4\r\nNAME\r\n"),
            ("*12\r\n", "*11\r\n"),
        ] {
            let reply = OLD.replace(part, instead);
            assert_ne!(reply, OLD, "{part:?}");
            assert_eq!(effect_of(Kind::Stream, true, &reply), "Failed", "{part:?}");
        }
        // The reply without FULL, and that of a consumer without what is pending.
        let short = "*3\r\n+stream\r\n:-1\r\n*4\r\n+groups\r\n:1\r\n+last-generated-id\r\n+1-1\r\n";
        assert_eq!(effect_of(Kind::Stream, true, short), "Failed");
        let reply = MODERN.replace("*0\r\n", ":0\r\n");
        assert_eq!(effect_of(Kind::Stream, true, &reply), "Failed");
    }
}
