//! The thread that adds up what the ranks of an emulated communicator send.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use syncbn_abi::NCCL_FLOAT32;

use super::communicator::{Header, element_size, encode, gone, receive, send_status};
use crate::error::{Error, Kind, Result};

/// More ranks than anyone has.
const MOST_RANKS: u64 = 1 << 16;
/// How long a new connection may take to say who it is.
const GREETING: Duration = Duration::from_secs(10);

/// A member of the communicator.
struct Member {
    /// Its rank in the run.
    rank: usize,
    /// Whether the root runs in its process.
    owner: bool,
    connection: TcpStream,
}

/// Serves a communicator from a thread of its own, until a member leaves.
pub(super) fn serve(listener: TcpListener, secret: u64) -> Result<()> {
    thread::Builder::new()
        .name("collectives".to_string())
        .spawn(move || {
            let Ok(mut members) = gather(&listener, secret) else {
                return;
            };
            drop(listener);
            let owner = members.iter().find(|member| member.owner);
            let owner = owner.map_or("that made the communicator".to_string(), |member| {
                member.rank.to_string()
            });
            tell(&mut members, Ok(&owner));
            let end = loop {
                if let Err(error) = call(&mut members) {
                    break error;
                }
            };
            tell(&mut members, Err(&end));
            members.into_iter().for_each(drain);
        })
        .map(|_| ())
        .map_err(|cause| Error::environment(format!("cannot start a thread: {cause}")))
}

/// Waits until all members have connected; they stand in order of their number in the communicator.
fn gather(listener: &TcpListener, secret: u64) -> io::Result<Vec<Member>> {
    let mut members: Vec<Option<Member>> = Vec::new();
    loop {
        let (connection, _) = listener.accept()?;
        let Ok(Some((number, count, member))) = greet(connection, secret) else {
            continue;
        };
        members.resize_with(members.len().max(count), || None);
        members[number] = Some(member);
        if members.iter().all(Option::is_some) {
            return Ok(members.into_iter().flatten().collect());
        }
    }
}

/// A new member, its number and how many there will be; None if it does not know the secret.
fn greet(mut connection: TcpStream, secret: u64) -> io::Result<Option<(usize, usize, Member)>> {
    connection.set_read_timeout(Some(GREETING))?;
    let [claim, number, count] = receive(&mut connection)?;
    if claim != secret || count > MOST_RANKS || number >= count {
        return Ok(None);
    }
    let [rank, owner] = receive(&mut connection)?;
    connection.set_read_timeout(None)?;
    connection.set_nodelay(true)?;
    let member = Member {
        rank: rank as usize,
        owner: owner != 0,
        connection,
    };
    Ok(Some((number as usize, count as usize, member)))
}

/// Reads and forgets what a member still sends, so that it comes to read the verdict.
fn drain(mut member: Member) {
    // A member that cannot be drained sees a broken connection instead of the verdict.
    let _ = thread::Builder::new().spawn(move || io::copy(&mut member.connection, &mut io::sink()));
}

/// Sends a verdict to all that are still there.
fn tell(members: &mut [Member], status: Result<&str, &Error>) {
    for member in members {
        // Whoever has left finds out when it is read from.
        let _ = send_status(&mut member.connection, status);
    }
}

/// One all-reduce. Members that got the sum so far have also got the verdict ahead of it.
fn call(members: &mut [Member]) -> Result<()> {
    let mut first: Option<(Header, usize)> = None;
    let mut sum = Vec::new();
    let mut part = Vec::new();
    for member in members.iter_mut() {
        let lost = |cause: io::Error| gone(member.rank, &cause);
        let header: Header = receive(&mut member.connection).map_err(lost)?;
        let &mut (expected, rank) = first.get_or_insert((header, member.rank));
        if header != expected {
            return Err(disagree(rank, expected, member.rank, header));
        }
        let [count, data_type, operation] = header;
        let size = element_size(data_type as i32, operation as i32)?;
        part.resize(count as usize * size, 0);
        member.connection.read_exact(&mut part).map_err(lost)?;
        if sum.is_empty() {
            sum.clone_from(&part);
        } else if data_type as i32 == NCCL_FLOAT32 {
            add(&mut sum, &part, |a, b| {
                (f32::from_ne_bytes(a) + f32::from_ne_bytes(b)).to_ne_bytes()
            });
        } else {
            add(&mut sum, &part, |a, b| {
                (f64::from_ne_bytes(a) + f64::from_ne_bytes(b)).to_ne_bytes()
            });
        }
    }
    let mut message = encode(&[0, 0]);
    message.append(&mut sum);
    for member in members {
        member
            .connection
            .write_all(&message)
            .map_err(|cause| gone(member.rank, &cause))?;
    }
    Ok(())
}

fn add<const N: usize>(sum: &mut [u8], part: &[u8], plus: impl Fn([u8; N], [u8; N]) -> [u8; N]) {
    let (sum, _) = sum.as_chunks_mut::<N>();
    for (total, value) in sum.iter_mut().zip(part.as_chunks::<N>().0) {
        *total = plus(*total, *value);
    }
}

fn disagree(rank: usize, header: Header, other: usize, others: Header) -> Error {
    Error::new(
        Kind::Internal,
        format!(
            "rank {rank} sums {} elements of type {} and rank {other} sums {} of type {}",
            header[0], header[1], others[0], others[1]
        ),
    )
}
