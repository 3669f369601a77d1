//! A command as it lies in a buffer: bytes plus the offsets of its arguments, never a tree.

/// Where one argument lies, relative to the first byte of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// One complete command: a RESP array of bulk strings, and where its arguments are.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The whole frame, `*N\r\n…` to the last `\r\n`.
    pub frame: &'a [u8],
    /// The arguments; the first is the command's name. Never empty.
    pub args: &'a [Span],
}

impl<'a> Request<'a> {
    /// The number of arguments, the name included.
    #[inline]
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// Whether there is no argument at all (a scanner never gives such a request).
    pub fn is_empty(&self) -> bool {
        self.args.is_empty()
    }

    /// Argument `i`; empty when there is no such argument.
    #[inline]
    pub fn arg(&self, i: usize) -> &'a [u8] {
        self.args.get(i).and_then(|s| self.frame.get(s.start as usize..s.end as usize)).unwrap_or(&[])
    }

    /// All arguments from `i` on.
    pub fn args_from(&self, i: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let Request { frame, args } = *self;
        args.get(i..)
            .unwrap_or(&[])
            .iter()
            .map(move |s| frame.get(s.start as usize..s.end as usize).unwrap_or(&[]))
    }
}
