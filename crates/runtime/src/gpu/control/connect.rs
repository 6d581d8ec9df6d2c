//! How the ranks of a run find each other: rank 0 listens, the others call it.

use std::{
    io,
    net::{TcpListener, TcpStream, ToSocketAddrs},
    os::fd::AsFd,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use syncbn_abi::{ABI_SYMBOL, Model};

use super::{
    Control,
    frame::{self, Frame, Hello, VERSION},
    state::{Peer, State},
    watch,
};
use crate::{
    error::{Error, Kind, Result},
    launcher::{Address, Member},
};

/// How long ranks may take to come together; a launcher may start them one after the other.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a caller may take to introduce itself.
const GREETING: Duration = Duration::from_secs(2);
/// Longest frame before all ranks have joined.
const GREETING_BYTES: u64 = 1 << 16;
/// A peer that takes nothing for so long is lost.
const WRITE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// Connects this process with the others of its run; returns when all have joined. All must run the same
/// `model`. `signalled` is set by a signal.
pub fn join(member: &Member, model: &Model, signalled: &Arc<AtomicBool>) -> Result<Arc<Control>> {
    let hello = Hello {
        version: VERSION,
        rank: member.rank,
        ranks: member.ranks,
        abi: ABI_SYMBOL.into(),
        model: model.name.clone(),
        schedule: model.schedule_hash,
    };
    let streams = match member.rank {
        0 => admit(&listener(&member.address)?, &hello, signalled)?,
        _ => call(&member.address, &hello, signalled)?,
    };
    control(&hello, streams, signalled)
}

/// A socket that lives; its small frames leave at once.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(Some(WRITE))
}

fn control(
    hello: &Hello,
    streams: Vec<Option<TcpStream>>,
    signalled: &Arc<AtomicBool>,
) -> Result<Arc<Control>> {
    let broken = |cause| Error::environment(format!("cannot use the control connection: {cause}"));
    let mut writers = Vec::new();
    for stream in &streams {
        let writer = stream
            .as_ref()
            .map(|stream| prepare(stream).and_then(|()| stream.try_clone()));
        writers.push(writer.transpose().map_err(broken)?.map(Mutex::new));
    }
    let peer = |_| Peer {
        inbox: std::collections::VecDeque::new(),
        heard: Instant::now(),
        step: 0,
        ended: None,
    };
    let control = Arc::new(Control {
        rank: hello.rank,
        ranks: hello.ranks,
        state: Mutex::new(State {
            peers: (0..streams.len()).map(peer).collect(),
            verdicts: 0,
            stop_after: None,
            interrupted: false,
            doom: None,
            told: false,
            concluding: false,
        }),
        writers,
        changed: Condvar::new(),
        step: AtomicU64::new(0),
        signalled: Arc::clone(signalled),
        aborter: Mutex::new(None),
    });
    watch::start(&control, streams)?;
    Ok(control)
}

/// Where rank 0 listens.
fn listener(address: &Address) -> Result<TcpListener> {
    match address {
        Address::Inherited => {
            let socket = io::stdin().as_fd().try_clone_to_owned();
            let socket = socket.map(TcpListener::from);
            socket.map_err(|cause| Error::internal(format!("the launcher left no socket: {cause}")))
        }
        Address::At { host, port } => TcpListener::bind(("0.0.0.0", *port)).map_err(|cause| {
            Error::environment(format!("cannot listen on port {port} of {host}: {cause}"))
                .help("SYNCBN_MASTER_PORT sets another port, on all ranks")
        }),
    }
}

/// Waits for a while, or returns the error of a wait that was too long or interrupted.
fn pause(start: Instant, signalled: &AtomicBool, late: impl Fn() -> String) -> Result<()> {
    if signalled.load(Ordering::Relaxed) {
        return Err(Error::new(
            Kind::Interrupted,
            "interrupted before all ranks had joined",
        ));
    }
    if start.elapsed() > PATIENCE {
        return Err(Error::new(Kind::RankDied, late()));
    }
    thread::sleep(PAUSE);
    Ok(())
}

/// Rank 0: admits all others. Whoever is not a rank of any run is turned away without a word.
fn admit(listener: &TcpListener, own: &Hello, signalled: &AtomicBool) -> Result<Vec<Option<TcpStream>>> {
    let broken = |cause| Error::environment(format!("cannot listen for the other ranks: {cause}"));
    listener.set_nonblocking(true).map_err(broken)?;
    let start = Instant::now();
    let mut streams: Vec<Option<TcpStream>> = (0..own.ranks).map(|_| None).collect();
    while streams.iter().skip(1).any(Option::is_none) {
        let Ok((mut stream, _)) = listener.accept() else {
            pause(start, signalled, || {
                let absent = streams
                    .iter()
                    .enumerate()
                    .skip(1)
                    .filter(|(_, stream)| stream.is_none());
                let absent: Vec<_> = absent.map(|(rank, _)| rank.to_string()).collect();
                format!(
                    "ranks {} did not join within {} s",
                    absent.join(", "),
                    PATIENCE.as_secs()
                )
            })?;
            continue;
        };
        let Some(hello) = greeting(&mut stream) else {
            continue;
        };
        let problem = compare(own, &hello, &streams);
        if let Some(problem) = problem {
            let frame = Frame::Refused(problem.clone());
            for stream in streams.iter_mut().flatten().chain([&mut stream]) {
                let _ = frame::write(stream, &frame);
            }
            return Err(Error::user(problem).help("start the same executable on all ranks"));
        }
        let place = hello.rank;
        streams[place] = Some(stream);
    }
    for stream in streams.iter_mut().flatten() {
        // Whoever has gone since is found by the thread that reads from it.
        let _ = frame::write(stream, &Frame::Welcome);
    }
    Ok(streams)
}

fn greeting(stream: &mut TcpStream) -> Option<Hello> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(GREETING)).ok()?;
    match frame::read(stream, GREETING_BYTES, || ()) {
        Ok(Frame::Hello(hello)) => Some(hello),
        _ => None,
    }
}

/// Why a rank does not fit in, if so.
fn compare(own: &Hello, other: &Hello, joined: &[Option<TcpStream>]) -> Option<String> {
    let Hello { rank, ranks, .. } = other;
    if *ranks != own.ranks {
        return Some(format!(
            "rank {rank} was told of {ranks} ranks, rank 0 of {}",
            own.ranks
        ));
    }
    if *rank == 0 || *rank >= own.ranks {
        return Some(format!("there is a second rank {rank} among {ranks}"));
    }
    if joined[*rank].is_some() {
        return Some(format!("there are two processes with rank {rank}"));
    }
    let differs = [
        (other.version != own.version, "another protocol"),
        (other.abi != own.abi, "another runtime"),
        (other.model != own.model, "another network"),
        (other.schedule != own.schedule, "another schedule of collectives"),
    ];
    let (_, what) = differs.iter().find(|(differs, _)| *differs)?;
    Some(format!(
        "rank {rank} runs another executable than rank 0: it has {what}"
    ))
}

/// A rank above 0: calls rank 0 until it answers, then waits for the others.
fn call(address: &Address, hello: &Hello, signalled: &AtomicBool) -> Result<Vec<Option<TcpStream>>> {
    let Address::At { host, port } = address else {
        return Err(Error::internal("only rank 0 inherits its socket"));
    };
    let (rank, start) = (hello.rank, Instant::now());
    let mut stream = loop {
        match connect(host, *port) {
            Ok(stream) => break stream,
            Err(cause) => pause(start, signalled, || {
                format!("rank {rank} cannot reach rank 0 at {host}:{port}: {cause}")
            })?,
        }
    };
    let lost = |cause: io::Error| {
        let text = format!("rank 0 ended before rank {rank} had joined ({cause})");
        Error::new(Kind::RankDied, text)
    };
    frame::write(&mut stream, &Frame::Hello(hello.clone())).map_err(lost)?;
    stream.set_read_timeout(Some(PATIENCE + GREETING)).map_err(lost)?;
    match frame::read(&mut stream, GREETING_BYTES, || ()).map_err(lost)? {
        Frame::Welcome => Ok(vec![Some(stream)]),
        Frame::Refused(problem) => Err(Error::user(problem)),
        other => Err(Error::internal(format!("rank 0 answered {other:?}"))),
    }
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, GREETING) {
            Ok(stream) => return Ok(stream),
            Err(cause) => last = cause,
        }
    }
    Err(last)
}
