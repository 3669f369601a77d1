//! Arguments: any bytes, and the words and numbers that commands look for.

use proptest::prelude::*;

/// Words that mean something to some command.
const WORDS: &[&str] = &[
    "NX",
    "XX",
    "GT",
    "LT",
    "CH",
    "INCR",
    "GET",
    "SET",
    "EX",
    "PX",
    "EXAT",
    "PXAT",
    "KEEPTTL",
    "PERSIST",
    "REPLACE",
    "ABSTTL",
    "IDLETIME",
    "FREQ",
    "DB",
    "STORE",
    "STOREDIST",
    "BY",
    "LIMIT",
    "ALPHA",
    "COUNT",
    "ANY",
    "STREAMS",
    "BLOCK",
    "GROUP",
    "NOACK",
    "MAXLEN",
    "MINID",
    "NOMKSTREAM",
    "~",
    "=",
    "*",
    "5-*",
    "5-1",
    ">",
    "$",
    "WEIGHTS",
    "AGGREGATE",
    "KEYS",
    "COPY",
    "AUTH",
    "AUTH2",
    "WITHSCORES",
    "FIELDS",
    "OVERFLOW",
    "WRAP",
    "INCRBY",
    "u8",
    "MATCH",
    "LEFT",
    "RIGHT",
    "MIN",
    "MAX",
    "BEFORE",
    "AFTER",
    "ON",
    "OFF",
    "SKIP",
    "NOVALUES",
    "nx\0",
    "px",
    "",
];

/// Numbers at the edges of what a command takes.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "-1",
    "10",
    "01",
    "+1",
    "-0",
    "1.5",
    "inf",
    "nan",
    "1e300",
    "1000000000000",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "9223372036854775",
    "-9223372036854776",
    "4294967296",
    "65536",
];

/// Any bytes, mostly few.
pub fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..24),
        4 => "[a-z]{1,6}".prop_map(String::into_bytes),
        1 => (0..70_000usize, any::<u8>()).prop_map(|(n, b)| vec![b; n]),
    ]
}

/// One argument behind a command's name.
pub fn argument() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::sample::select(WORDS).prop_map(|w| w.as_bytes().to_vec()),
        4 => prop::sample::select(NUMBERS).prop_map(|w| w.as_bytes().to_vec()),
        4 => "[a-c]".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}

/// A command with arguments.
pub fn arguments() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop_oneof![
        8 => prop::collection::vec(bytes(), 1..9),
        1 => prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3), 1..3000),
    ]
}
