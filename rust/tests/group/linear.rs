//! Whether what was heard of one register can have happened in one order: the search of Wing and Gong, with Lowe's memory
//! of where it has been.

use std::collections::HashSet;

use super::script::{Heard, Kind, Op, Outcome};

#[derive(Clone, Debug)]
struct Step {
    /// `None`: a read.
    writes: Option<usize>,
    /// What a read saw: the number of the write, 0 is nothing.
    sees: usize,
    from: u64,
    to: u64,
}

/// `Err`: it cannot, with what was asked around where the search got stuck.
pub fn check(ops: &[&Op]) -> Result<(), String> {
    let number = |word: &str| {
        ops.iter().position(|o| o.kind == Kind::Set && o.word == word).map_or(usize::MAX, |i| i + 1)
    };
    let seen: HashSet<&str> = ops
        .iter()
        .filter_map(|o| match &o.outcome {
            Outcome::Reply(Heard::Text(text)) if o.kind == Kind::Get => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let mut steps = Vec::new();
    for (i, op) in ops.iter().enumerate() {
        match (&op.kind, &op.outcome) {
            (Kind::Set, Outcome::Reply(_)) => {
                steps.push(Step { writes: Some(i + 1), sees: 0, from: op.invoked, to: op.answered });
            }
            // One whose fate is not known, and that nobody has seen, may not have run.
            (Kind::Set, Outcome::Doubt | Outcome::Pending) if seen.contains(op.word.as_str()) => {
                steps.push(Step { writes: Some(i + 1), sees: 0, from: op.invoked, to: u64::MAX });
            }
            (Kind::Get, Outcome::Reply(Heard::Nil)) => {
                steps.push(Step { writes: None, sees: 0, from: op.invoked, to: op.answered });
            }
            (Kind::Get, Outcome::Reply(Heard::Text(text))) => {
                steps.push(Step { writes: None, sees: number(text), from: op.invoked, to: op.answered });
            }
            _ => {}
        }
    }
    steps.sort_by_key(|s| s.from);
    search(&steps).map_err(|stuck| {
        let near = steps[stuck].to.min(steps[stuck].from + 1_000_000);
        let lines: Vec<String> = ops
            .iter()
            .filter(|o| o.invoked <= near && o.answered + 300_000 >= steps[stuck].from)
            .map(|o| {
                format!(
                    "c{} at {} {:?} {} {}..{}: {:?}",
                    o.client, o.member, o.kind, o.word, o.invoked, o.answered, o.outcome
                )
            })
            .collect();
        format!("no order explains step {stuck} ({:?}):\n{}", steps[stuck], lines.join("\n"))
    })
}

/// Depth first; a state is who is done (everybody before `base`, and the bits from there on) and the value.
fn search(steps: &[Step]) -> Result<(), usize> {
    let n = steps.len();
    let mut memory: HashSet<(usize, Vec<u64>, usize)> = HashSet::new();
    let mut stack = vec![(0usize, vec![false; n], 0usize)];
    let mut furthest = 0;
    while let Some((base, done, value)) = stack.pop() {
        let mut base = base;
        while base < n && done[base] {
            base += 1;
        }
        if base == n || steps[base..].iter().zip(&done[base..]).all(|(s, d)| *d || s.to == u64::MAX) {
            return Ok(());
        }
        furthest = furthest.max(base);
        let key: Vec<u64> = done[base..]
            .chunks(64)
            .map(|c| c.iter().enumerate().fold(0, |bits, (i, d)| bits | u64::from(*d) << i))
            .collect();
        if !memory.insert((base, key, value)) {
            continue;
        }
        // Nobody comes before another that had ended when it began.
        let ends = (base..n).filter(|i| !done[*i]).map(|i| steps[i].to).min().unwrap_or(u64::MAX);
        for i in (base..n).rev() {
            if done[i] || steps[i].from > ends {
                continue;
            }
            let next = match steps[i].writes {
                Some(number) => number,
                None if steps[i].sees == value => value,
                None => continue,
            };
            let mut after = done.clone();
            after[i] = true;
            stack.push((base, after, next));
        }
        assert!(memory.len() < 2_000_000, "the search is too long");
    }
    Err(furthest)
}
