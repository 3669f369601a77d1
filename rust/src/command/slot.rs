//! Redis Cluster's hash slots: CRC16 of the key, or of its hash tag.
//!
//! Used to spread keys over the endpoints of a cluster as Redis Cluster (and Envoy) would.

/// The number of hash slots.
pub const SLOTS: u16 = 16_384;

/// CRC16/XMODEM: polynomial 0x1021, start 0, nothing reflected.
const CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC16/XMODEM of some bytes.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ CRC[usize::from((crc >> 8) as u8 ^ byte)])
}

/// The part of a key that decides its slot: what lies between the first `{` and the next `}`, if that is not empty;
/// else the whole key.
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let tag = memchr::memchr(b'{', key).and_then(|open| {
        let inside = key.get(open + 1..)?;
        inside.get(..memchr::memchr(b'}', inside)?)
    });
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// The hash slot of a key.
pub fn slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
    }

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // From `CLUSTER KEYSLOT` of Redis 7.0.
        for (key, expected) in [
            ("", 0),
            ("foo", 12_182),
            ("{user1000}.following", 3443),
            ("user1000", 3443),
            ("foo{}{bar}", 8363),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn tags() {
        for (key, tag) in [
            ("a{b}c", "b"),
            ("a{}c", "a{}c"),
            ("{}{b}", "{}{b}"),
            ("a{{b}}c", "{b"),
            ("a}b{c}", "c"),
            ("a{b", "a{b"),
            ("{b}{c}", "b"),
            ("", ""),
        ] {
            assert_eq!(hash_tag(key.as_bytes()), tag.as_bytes(), "{key}");
        }
    }
}
