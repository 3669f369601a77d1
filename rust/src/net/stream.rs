//! A connected socket, TCP or unix.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};

use crate::plan::Address;

/// What a read or write did.
#[derive(Debug)]
pub enum Io {
    /// So many bytes.
    Done(usize),
    /// Nothing now; an event will tell.
    Later,
    /// The other side has closed.
    End,
    /// The socket failed.
    Failed(io::Error),
}

/// The socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

impl Stream {
    /// Begin to connect; `Ready::writable` tells the end, [`Self::connected`] its result. `dead_after`: how long the
    /// other side may leave our bytes unacknowledged before the kernel gives up.
    pub fn connect(address: &Address, dead_after: Duration) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(*address)?;
                let socket = SockRef::from(&stream);
                socket.set_tcp_nodelay(true)?;
                keep_alive(&socket)?;
                #[cfg(target_os = "linux")]
                socket.set_tcp_user_timeout(Some(dead_after))?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => UnixStream::connect(path).map(Self::Unix),
            Address::Link(_) => Err(io::ErrorKind::AddrNotAvailable.into()), // a pair is made: no address leads there
        }
    }

    /// Two sockets that are connected to each other.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Self::Unix(one), Self::Unix(other)))
    }

    /// The result of connecting; `false` while there is none.
    pub fn connected(&self) -> io::Result<bool> {
        let error = match self {
            Self::Tcp(stream) => stream.take_error()?,
            Self::Unix(stream) => stream.take_error()?,
        };
        match (error, self) {
            (Some(error), _) => Err(error),
            (None, Self::Tcp(stream)) => match stream.peer_addr() {
                Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
                other => other.map(|_| true),
            },
            (None, Self::Unix(_)) => Ok(true),
        }
    }

    /// A client's socket, as accepted.
    pub fn accepted(stream: TcpStream) -> io::Result<Self> {
        let socket = SockRef::from(&stream);
        socket.set_tcp_nodelay(true)?;
        keep_alive(&socket)?;
        Ok(Self::Tcp(stream))
    }

    /// The other side's address and this one's, where they have one.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            Self::Tcp(stream) => Some((stream.peer_addr().ok()?, stream.local_addr().ok()?)),
            Self::Unix(_) => None,
        }
    }

    /// Read into `buffer`.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> Io {
        let result = match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        };
        match result {
            Ok(0) if !buffer.is_empty() => Io::End,
            other => outcome(other),
        }
    }

    /// Read behind what `buffer` holds, into its spare room: `limit` bytes, or the little more that it has room for.
    pub fn read_behind(&mut self, buffer: &mut Vec<u8>, limit: usize) -> Io {
        let before = buffer.len();
        buffer.reserve_exact(limit);
        let room = rustix::buffer::spare_capacity(buffer);
        let result = match self {
            Self::Tcp(stream) => rustix::io::read(&*stream, room),
            Self::Unix(stream) => rustix::io::read(&*stream, room),
        };
        match result {
            Ok(0) if limit > 0 => Io::End,
            Ok(_) => Io::Done(buffer.len() - before),
            Err(e) => outcome(Err(e.into())),
        }
    }

    /// Write `bytes`.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Io {
        outcome(match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        })
    }

    /// Write several slices.
    #[inline]
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Io {
        outcome(match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
        })
    }
}

fn outcome(result: io::Result<usize>) -> Io {
    match result {
        Ok(n) => Io::Done(n),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Io::Later,
        Err(e) => Io::Failed(e),
    }
}

fn keep_alive(socket: &SockRef<'_>) -> io::Result<()> {
    let probes = TcpKeepalive::new().with_time(Duration::from_mins(1)).with_interval(Duration::from_secs(10));
    socket.set_tcp_keepalive(&probes)
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interests),
            Self::Unix(stream) => stream.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, interests),
            Self::Unix(stream) => stream.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }
}
