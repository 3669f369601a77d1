//! Sockets that accept clients. Bound by the control plane's thread, so that a failure is an error of the call that
//! asked for it; handed to the worker afterwards.

use std::io;
use std::net::SocketAddr;
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
    /// Bind `address` and listen. `shared`: other sockets of this process will listen there as well.
    pub fn bind(listener: &str, address: &Address, shared: bool) -> Result<Self, BindError> {
        let socket = match address {
            Address::Tcp(tcp) => bind_tcp_first(*tcp, shared).map(Acceptor::Tcp),
            Address::Unix(path) => bind_unix(path).map(Acceptor::Unix),
            Address::Link(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        match socket {
            Ok(socket) => Ok(Self { listener: listener.to_owned(), address: address.clone(), socket }),
            Err(source) => Err(BindError { listener: listener.to_owned(), address: address.clone(), source }),
        }
    }

    /// Listen where another socket of this process does already, at `local`: the kernel spreads the clients over them.
    pub fn beside(listener: &str, address: &Address, local: &str) -> Result<Self, BindError> {
        let (listener, address) = (listener.to_owned(), address.clone());
        let socket = match local.parse() {
            Ok(local) => bind_tcp(local, true),
            Err(_) => Err(io::ErrorKind::AddrInUse.into()), // a unix socket has one listener
        };
        match socket {
            Ok(socket) => Ok(Self { listener, address, socket: Acceptor::Tcp(socket) }),
            Err(source) => Err(BindError { listener, address, source }),
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

/// Who shares an address is not refused by another process that does, so whether it is free is tried with one that does not.
fn bind_tcp_first(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    if shared {
        drop(bound(address, false)?);
    }
    bind_tcp(address, shared)
}

fn bind_tcp(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = bound(address, shared)?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
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
