//! Large buffers on their way from one session's output to the next one's: a burst of long replies would otherwise ask
//! the system for memory, and have it cleared, for each of them.

/// Most bytes kept.
const KEPT: usize = 8 << 20;

/// The buffers that nobody needs at the moment.
#[derive(Debug, Default)]
pub struct Buffers {
    free: Vec<Vec<u8>>,
    held: usize,
}

impl Buffers {
    /// Give a buffer back; it is dropped when enough are kept.
    pub fn put(&mut self, buffer: Vec<u8>) {
        debug_assert!(buffer.is_empty());
        if self.held + buffer.capacity() <= KEPT {
            self.held += buffer.capacity();
            self.free.push(buffer);
        }
    }

    /// A buffer, if there is one.
    #[inline]
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let buffer = self.free.pop()?;
        self.held -= buffer.capacity();
        Some(buffer)
    }

    /// Bytes kept.
    pub fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_much_is_kept() {
        let mut buffers = Buffers::default();
        for _ in 0..20 {
            buffers.put(Vec::with_capacity(1 << 20));
        }
        assert_eq!(buffers.held(), KEPT);
        assert_eq!(buffers.take().map(|b| b.capacity()), Some(1 << 20));
        assert_eq!(buffers.held(), KEPT - (1 << 20));
    }
}
