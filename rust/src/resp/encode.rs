//! Writing RESP into a byte vector.

fn head(out: &mut Vec<u8>, kind: u8, n: usize) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `*n\r\n`: an array of `n` elements follows.
pub fn array(out: &mut Vec<u8>, n: usize) {
    head(out, b'*', n);
}

/// `%n\r\n` in RESP3, a flat array of `2n` in RESP2: `n` pairs follow.
pub fn map(out: &mut Vec<u8>, n: usize, resp3: bool) {
    if resp3 { head(out, b'%', n) } else { head(out, b'*', n * 2) }
}

/// `>n\r\n` in RESP3, an array in RESP2: a message of `n` elements follows that is no reply.
pub fn push(out: &mut Vec<u8>, n: usize, resp3: bool) {
    head(out, if resp3 { b'>' } else { b'*' }, n);
}

/// A bulk string.
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    head(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// `~n\r\n` in RESP3, an array in RESP2: `n` members follow.
pub fn set(out: &mut Vec<u8>, n: usize, resp3: bool) {
    head(out, if resp3 { b'~' } else { b'*' }, n);
}

/// Text for people: a verbatim string in RESP3, a bulk string in RESP2.
pub fn verbatim(out: &mut Vec<u8>, text: &str, resp3: bool) {
    if !resp3 {
        return bulk(out, text.as_bytes());
    }
    head(out, b'=', text.len() + 4);
    out.extend_from_slice(b"txt:");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An integer.
pub fn integer(out: &mut Vec<u8>, n: i64) {
    out.push(b':');
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A status, for example `OK`; the text must hold no line break.
pub fn status(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An error; line breaks in the text (it may quote a client's bytes) become spaces, as Redis does it.
pub fn error(out: &mut Vec<u8>, text: &str) {
    out.push(b'-');
    out.extend(text.bytes().map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
    out.extend_from_slice(b"\r\n");
}

/// Nil of the session's protocol.
pub fn nil(out: &mut Vec<u8>, resp3: bool) {
    out.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" });
}

/// Nil where an array was asked for.
pub fn nil_array(out: &mut Vec<u8>, resp3: bool) {
    out.extend_from_slice(if resp3 { b"_\r\n" } else { b"*-1\r\n" });
}

/// A whole command.
pub fn command<T: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[T]) {
    array(out, args.len());
    for arg in args {
        bulk(out, arg.as_ref());
    }
}
