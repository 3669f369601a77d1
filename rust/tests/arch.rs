//! The import rule, checked on the text of `rust/src`: who may name whom, and what may be named in one place only.
//!
//! ```text
//! resp ◄ command ◄ plan ◄ flow ◄ worker ◄ python        net ◄ worker        stats ◄ flow, worker, python
//! ```
//!
//! Comments and strings are taken out first, so that only code counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may name of the crate, besides itself.
///
/// Two edges are narrower than the module they lead to, see [`NARROW`]: `net` needs an address to bind and connect to,
/// and `stats` shows the counter of unsettled tickets, which lives with the tickets so that dropping one needs nothing.
const MAY_SEE: &[(&str, &[&str])] = &[
    ("resp", &[]),
    ("command", &["resp"]),
    ("plan", &["resp", "command"]),
    ("stats", &["command", "flow"]),
    ("flow", &["resp", "command", "plan", "stats"]),
    ("net", &["plan"]),
    ("worker", &["resp", "command", "plan", "stats", "flow", "net"]),
    ("python", &["resp", "command", "plan", "stats", "flow", "worker"]),
];

/// Edges over which only these names may be used.
const NARROW: &[(&str, &str, &[&str])] = &[("net", "plan", &["Address"]), ("stats", "flow", &["UNSETTLED"])];

/// What may be named in some files only (paths below `rust/src`, a directory ends in `/`), and why.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("pyo3", &["python/"], "the boundary is one module"),
    ("unsafe", &["net/sys.rs"], "law 12"),
    ("Instant::now", &["worker/clock.rs"], "only the worker reads a clock"),
    ("SystemTime::now", &["worker/clock.rs"], "only the worker reads a clock"),
    ("std::net::TcpStream", &[], "sockets are mio's, and do not block"),
    ("mio", &["net/"], "only net makes system calls"),
    ("socket2", &["net/"], "only net makes system calls"),
    ("thread::sleep", &[], "nothing on the data plane waits"),
];

/// A source file: its path below `rust/src`, and its code.
struct Source {
    path: String,
    code: String,
}

impl Source {
    /// The module of the crate it belongs to; `None` for `lib.rs`.
    fn module(&self) -> Option<&str> {
        let head = self.path.split('/').next()?;
        let head = head.strip_suffix(".rs").unwrap_or(head);
        (head != "lib").then_some(head)
    }

    /// Each `crate::module::Name` that it names, as (module, what follows it).
    fn imports(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            // `$crate` in a macro is the crate just the same.
            let path: String = self.code[at + "crate::".len()..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '{' | '}' | ',' | ' ' | '\n'))
                .take_while(|c| *c != ';')
                .collect();
            let module: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let rest = path[module.len()..].trim_start_matches(':').to_owned();
            assert!(
                !module.is_empty(),
                "{}: a list of modules in one `use crate::{{…}}` hides edges",
                self.path
            );
            found.push((module, rest));
        }
        found
    }

    /// Whether `name` is there as a word (or path) of its own.
    fn names(&self, name: &str) -> bool {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        self.code.match_indices(name).any(|(at, _)| {
            !self.code[..at].ends_with(is_part) && !self.code[at + name.len()..].starts_with(is_part)
        })
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("rust/src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let read = |file: &PathBuf| Source {
        path: file.strip_prefix(&root).expect("below rust/src").to_string_lossy().into_owned(),
        code: code_of(&fs::read_to_string(file).expect("a source file")),
    };
    files.iter().map(read).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// The text without comments and without what stands between double quotes.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("'\"'") {
            rest = &rest[3..];
        } else if c == '"' {
            rest = after_string(&rest[1..]);
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

#[test]
fn imports_go_one_way() {
    let mut edges: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        let Some((_, seen)) = MAY_SEE.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: the module '{module}' is not in the rule", source.path));
            continue;
        };
        for (other, rest) in source.imports().into_iter().filter(|(other, _)| other != module) {
            if !seen.contains(&other.as_str()) {
                wrong.push(format!("{}: '{module}' must not see '{other}' ({rest})", source.path));
            }
            let narrow = NARROW.iter().find(|(from, to, _)| *from == module && *to == other);
            if narrow.is_some_and(|(.., names)| {
                !names
                    .iter()
                    .any(|n| rest.strip_prefix(n).is_some_and(|r| !r.starts_with(char::is_alphanumeric)))
            }) {
                wrong.push(format!("{}: of '{other}', '{module}' must not see {rest}", source.path));
            }
            edges.insert((module.to_owned(), other), source.path.clone());
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // The check sees something: these are the edges that the design is made of.
    for (from, to) in
        [("flow", "plan"), ("flow", "stats"), ("worker", "flow"), ("worker", "net"), ("net", "plan")]
    {
        assert!(edges.contains_key(&(from.to_owned(), to.to_owned())), "no edge {from} -> {to} was found");
    }
}

#[test]
fn some_things_have_one_place() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, places, why) in ONLY_IN {
            let allowed =
                places.iter().any(|p| source.path == *p || (p.ends_with('/') && source.path.starts_with(p)));
            // The feature's name in an attribute went with the strings.
            if !allowed && source.names(name) {
                wrong.push(format!("{} names {name}: {why}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_module_says_what_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("rust/src");
    for source in sources() {
        let text = fs::read_to_string(root.join(&source.path)).expect("a source file");
        assert!(text.starts_with("//! "), "{} does not begin with what it is for", source.path);
    }
}

#[test]
fn comments_and_strings_are_no_code() {
    let code = code_of("a // unsafe\nb \"unsafe \\\" pyo3\" c '\"' d /// mio\n");
    assert_eq!(code, "a \nb  c  d \n");
}
