//! The two ends of a client's connection, as small as 10,000 idle sessions want them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Where a client comes from, and where it came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ends {
    /// Not known.
    #[default]
    Unknown,
    /// Addresses and ports.
    Tcp {
        /// The client's.
        remote: (IpAddr, u16),
        /// Ours.
        local: (IpAddr, u16),
    },
    /// The path of our socket.
    Unix(Box<Path>),
}

/// One of them, written as Redis writes it: `address:port`, `[address]:port`, `path:0`.
#[derive(Debug)]
pub struct Shown<'a> {
    ends: &'a Ends,
    remote: bool,
}

impl Ends {
    /// A TCP connection.
    pub fn tcp(remote: SocketAddr, local: SocketAddr) -> Self {
        Self::Tcp { remote: (remote.ip(), remote.port()), local: (local.ip(), local.port()) }
    }

    /// A connection to the unix socket at `path`.
    pub fn unix(path: &Path) -> Self {
        Self::Unix(path.into())
    }

    /// The client's end.
    pub(super) fn remote(&self) -> Shown<'_> {
        Shown { ends: self, remote: true }
    }

    /// Our end.
    pub(super) fn local(&self) -> Shown<'_> {
        Shown { ends: self, remote: false }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ends {
            Ends::Unknown => f.write_str("?:0"),
            Ends::Tcp { remote, local } => {
                let (address, port) = if self.remote { *remote } else { *local };
                SocketAddr::new(address, port).fmt(f)
            }
            Ends::Unix(path) => write!(f, "{}:0", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_redis_writes_them() {
        let tcp = Ends::tcp("[::1]:5".parse().expect("address"), "127.0.0.1:6379".parse().expect("address"));
        assert_eq!(tcp.remote().to_string(), "[::1]:5");
        assert_eq!(tcp.local().to_string(), "127.0.0.1:6379");
        let unix = Ends::unix(Path::new("/run/r.sock"));
        assert_eq!(
            (unix.remote().to_string(), unix.local().to_string()),
            ("/run/r.sock:0".into(), "/run/r.sock:0".into())
        );
    }

    #[test]
    fn are_small() {
        assert!(size_of::<Ends>() <= 48, "{}", size_of::<Ends>());
    }
}
