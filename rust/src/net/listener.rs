//! Sockets that accept clients. Bound by the control plane's thread, so that a failure is an error of the call that
//! asked for it; handed to the worker afterwards.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::plan::Address;

use super::stream::Stream;
use super::words::words;

/// Pending connections the kernel keeps.
const BACKLOG: i32 = 1024;

/// An address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: cannot bind {address}: {}; choose another address or stop what uses it", words(.source))]
pub struct BindError {
    /// The listener's name.
    pub listener: String,
    /// The address.
    pub address: Address,
    /// The system's reason.
    pub source: io::Error,
}

/// A bound address.
#[derive(Debug)]
pub struct Bound {
    /// The listener's name.
    pub listener: String,
    /// The address as configured: its identity across plans.
    pub address: Address,
    socket: Acceptor,
}

#[derive(Debug)]
enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    /// Bind `address` and listen.
    pub fn bind(listener: &str, address: &Address) -> Result<Self, BindError> {
        let socket = match address {
            Address::Tcp(tcp) => bind_tcp(*tcp).map(Acceptor::Tcp),
            Address::Unix(path) => bind_unix(path).map(Acceptor::Unix),
        };
        match socket {
            Ok(socket) => Ok(Self { listener: listener.to_owned(), address: address.clone(), socket }),
            Err(source) => Err(BindError { listener: listener.to_owned(), address: address.clone(), source }),
        }
    }

    /// The address it is bound to: a port 0 is resolved.
    pub fn local_address(&self) -> String {
        match &self.socket {
            Acceptor::Tcp(socket) => {
                socket.local_addr().map_or_else(|_| self.address.to_string(), |a| a.to_string())
            }
            Acceptor::Unix(_) => self.address.to_string(),
        }
    }

    /// Take one waiting client.
    pub fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Acceptor::Tcp(socket) => Stream::accepted(socket.accept()?.0),
            Acceptor::Unix(socket) => socket.accept().map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let (Acceptor::Unix(_), Address::Unix(path)) = (&self.socket, &self.address) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_tcp(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// A socket file that nobody listens on any more is replaced; anything else in its place is an error.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file which is not a socket",
            ));
        }
        if StdUnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

impl Source for Bound {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match &mut self.socket {
            Acceptor::Tcp(socket) => socket.register(registry, token, interests),
            Acceptor::Unix(socket) => socket.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match &mut self.socket {
            Acceptor::Tcp(socket) => socket.reregister(registry, token, interests),
            Acceptor::Unix(socket) => socket.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match &mut self.socket {
            Acceptor::Tcp(socket) => socket.deregister(registry),
            Acceptor::Unix(socket) => socket.deregister(registry),
        }
    }
}
