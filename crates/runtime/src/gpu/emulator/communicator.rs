//! Collectives of emulated devices: sums over TCP.
//!
//! The rank that makes an identifier opens a listener and serves it from a thread, the *root*, which every rank
//! of the communicator connects to, its own included. In a call each rank sends a header and its elements; the
//! root adds them in rank order, in the element type, and sends the sum to all, or the reason why there is none.

use std::{
    cell::RefCell,
    collections::hash_map::RandomState,
    fmt::Display,
    hash::BuildHasher,
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
};

use syncbn_abi::{NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM};

use super::{Emulator, root};
use crate::{
    error::{Error, Kind, Result},
    gpu::stream::AllReduce,
};

/// What a rank sends ahead of its elements: count, type and operation, 8 bytes each, little endian.
pub(super) type Header = [u64; 3];

/// Opens the root of a communicator; the identifier is a secret and the address.
pub(super) fn open(address: IpAddr) -> Result<Vec<u8>> {
    let lost = |cause: io::Error| Error::environment(format!("cannot listen on {address}: {cause}"));
    let listener = TcpListener::bind((address, 0)).map_err(lost)?;
    let address = listener.local_addr().map_err(lost)?;
    // Keeps out whoever else connects; the standard library seeds it from the system.
    let secret = RandomState::new().hash_one(address);
    root::serve(listener, secret)?;
    Ok(format!("{secret} {address}").into_bytes())
}

/// A rank's part of a communicator.
pub struct Communicator {
    connection: RefCell<TcpStream>,
    /// The rank that runs the root, if it is a member.
    owner: String,
}

impl Communicator {
    /// Connects to the root, as member `rank` of `peers`, and waits for all of them. `own` says whether this
    /// rank has made the identifier.
    pub(super) fn join(id: &[u8], own: bool, rank: usize, peers: &[usize]) -> Result<Self> {
        let (secret, address) =
            parse(id).ok_or_else(|| Error::internal("a communicator's identifier is malformed"))?;
        let owner = "that made the communicator";
        let lost = |cause: io::Error| gone(owner, &cause);
        let mut connection = TcpStream::connect(address).map_err(lost)?;
        connection.set_nodelay(true).map_err(lost)?;
        let name = *peers.get(rank).ok_or_else(|| {
            Error::internal(format!("a communicator of {} has no rank {rank}", peers.len()))
        })?;
        let greeting = [
            secret,
            rank as u64,
            peers.len() as u64,
            name as u64,
            u64::from(own),
        ];
        connection.write_all(&encode(&greeting)).map_err(lost)?;
        let owner = receive_status(&mut connection, owner)?;
        Ok(Communicator {
            connection: RefCell::new(connection),
            owner,
        })
    }

    /// What ends the communicator from any thread. None if the system has no more file descriptors.
    pub(super) fn aborter(&self) -> Option<impl Fn() + Send + 'static> {
        let connection = self.connection.borrow().try_clone().ok()?;
        Some(move || {
            // A connection that has ended already is what is wanted.
            let _ = connection.shutdown(Shutdown::Both);
        })
    }

    /// Sums over the members.
    pub(in crate::gpu) fn all_reduce(&self, emulator: &Emulator, call: AllReduce) -> Result<()> {
        let size = element_size(call.data_type, call.operation)?;
        let bytes = usize::try_from(call.count)
            .ok()
            .and_then(|count| count.checked_mul(size))
            .ok_or_else(|| Error::internal("an all-reduce is too large"))?;
        emulator
            .memory()
            .check(call.send, bytes, "what an all-reduce sends")?;
        emulator
            .memory()
            .check(call.receive, bytes, "what an all-reduce receives")?;
        let lost = |cause: io::Error| gone(&self.owner, &cause);
        let mut connection = self.connection.borrow_mut();
        let header: Header = [call.count, call.data_type as u64, call.operation as u64];
        connection.write_all(&encode(&header)).map_err(lost)?;
        // SAFETY: `check` says that these bytes are in an allocation, and nothing else runs.
        let sent = unsafe { slice(call.send, bytes) };
        connection.write_all(sent).map_err(lost)?;
        receive_status(&mut connection, &self.owner)?;
        let mut sum = vec![0; bytes];
        connection.read_exact(&mut sum).map_err(lost)?;
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(sum.as_ptr(), call.receive, bytes) };
        Ok(())
    }
}

/// # Safety
/// As [`std::slice::from_raw_parts`], but for a null pointer to nothing.
unsafe fn slice<'a>(start: *const u8, bytes: usize) -> &'a [u8] {
    if bytes == 0 {
        return &[];
    }
    // SAFETY: passed on from the caller.
    unsafe { std::slice::from_raw_parts(start, bytes) }
}

/// Bytes of an element of what can be summed.
pub(super) fn element_size(data_type: i32, operation: i32) -> Result<usize> {
    match (data_type, operation) {
        (NCCL_FLOAT32, NCCL_SUM) => Ok(4),
        (NCCL_FLOAT64, NCCL_SUM) => Ok(8),
        _ => Err(Error::internal(format!(
            "an all-reduce of type {data_type} with operation {operation}"
        ))),
    }
}

fn parse(id: &[u8]) -> Option<(u64, SocketAddr)> {
    let mut words = std::str::from_utf8(id).ok()?.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// The bytes of some words.
pub(super) fn encode(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Receives words.
pub(super) fn receive<const N: usize>(connection: &mut TcpStream) -> io::Result<[u64; N]> {
    let mut words = [0; N];
    for word in &mut words {
        let mut bytes = [0; 8];
        connection.read_exact(&mut bytes)?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(words)
}

/// Sends the root's verdict: nothing wrong, or a dead rank, or what the ranks disagree about.
pub(super) fn send_status(connection: &mut TcpStream, status: Result<&str, &Error>) -> io::Result<()> {
    let (code, text) = match status {
        Ok(text) => (0, text),
        Err(error) => (
            if error.kind == Kind::RankDied { 1 } else { 2 },
            error.message.as_str(),
        ),
    };
    let mut message = encode(&[code, text.len() as u64]);
    message.extend(text.as_bytes());
    connection.write_all(&message)
}

fn receive_status(connection: &mut TcpStream, owner: &str) -> Result<String> {
    let lost = |cause: io::Error| gone(owner, &cause);
    let [code, length] = receive(connection).map_err(lost)?;
    let mut text = String::new();
    connection.take(length).read_to_string(&mut text).map_err(lost)?;
    match code {
        0 => Ok(text),
        1 => Err(Error::new(Kind::RankDied, text)),
        _ => Err(Error::internal(text)),
    }
}

/// The error of a rank that does not answer.
pub(super) fn gone(rank: impl Display, cause: &io::Error) -> Error {
    Error::new(
        Kind::RankDied,
        format!("rank {rank} is gone: its connection ended"),
    )
    .note(cause)
}
