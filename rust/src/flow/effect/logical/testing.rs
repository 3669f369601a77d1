//! A reply in, one line out: how the tables of these tests are run.

use super::{Kind, Logical, logical_effect};
use crate::command::testing::Owned;
use crate::resp::Reply;

/// The effect of that reply on the key `k`, as [`lines`], or what there is instead.
pub(super) fn effect_of(kind: Kind, has_counters: bool, reply: &str) -> String {
    let before = b"before";
    let mut out = before.to_vec();
    let logical = logical_effect(kind, has_counters, b"k", Reply::new(reply.as_bytes()), &mut out);
    let written = out.strip_prefix(before).expect("what was there before");
    match logical {
        Logical::Effect { replies } => lines(replies as usize, written),
        other => {
            assert_eq!(written, b"", "{reply:?}");
            format!("{other:?}")
        }
    }
}

/// The words of each of `count` commands; there must be no more and no fewer.
pub(super) fn lines(count: usize, commands: &[u8]) -> String {
    let all = [format!("*{count}\r\n").as_bytes(), commands].concat();
    let found: Vec<Reply<'_>> = Reply::new(&all).elements().collect();
    let length: usize = found.iter().map(|command| command.bytes().len()).sum();
    assert_eq!((found.len(), length), (count, commands.len()), "{}", String::from_utf8_lossy(commands));
    let lines: Vec<String> = found.iter().map(|command| Owned::parse(command.bytes()).line()).collect();
    lines.join("; ")
}
