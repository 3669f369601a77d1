//! Requests out of text, for the tests of this crate.

use crate::resp::{Request, Span, encode};

/// A request that owns its bytes.
pub(crate) struct Owned {
    frame: Vec<u8>,
    args: Vec<Span>,
}

impl Owned {
    /// From words separated by single spaces; `""` is an empty argument.
    pub(crate) fn new(line: &str) -> Self {
        let words: Vec<&[u8]> =
            line.split(' ').map(|word| if word == "\"\"" { &b""[..] } else { word.as_bytes() }).collect();
        Self::of(&words)
    }

    /// From arguments.
    pub(crate) fn of(words: &[&[u8]]) -> Self {
        let (mut frame, mut args) = (Vec::new(), Vec::new());
        encode::array(&mut frame, words.len());
        for word in words {
            encode::bulk(&mut frame, word);
            let end = frame.len() as u32 - 2;
            args.push(Span { start: end - word.len() as u32, end });
        }
        Self { frame, args }
    }

    /// From the bytes of one command of bulk strings.
    pub(crate) fn parse(frame: &[u8]) -> Self {
        let reply = crate::resp::Reply::new(frame);
        let words: Vec<&[u8]> = reply.elements().filter_map(crate::resp::Reply::text).collect();
        let parsed = Self::of(&words);
        assert_eq!(parsed.frame, frame, "not one canonical command");
        parsed
    }

    pub(crate) fn request(&self) -> Request<'_> {
        Request { frame: &self.frame, args: &self.args }
    }

    /// The words, separated by spaces.
    pub(crate) fn line(&self) -> String {
        let words: Vec<_> = self.request().args_from(0).map(String::from_utf8_lossy).collect();
        words.join(" ")
    }
}
