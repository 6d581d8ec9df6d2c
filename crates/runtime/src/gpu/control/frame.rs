//! What the processes of a run tell each other: frames of a kind, a length and content.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// Goes up with every change of the frames.
pub const VERSION: u32 = 1;
/// Content is read in pieces, so that each shows that the peer lives.
const PIECE: usize = 1 << 20;
/// Kind of [`Frame::Data`]; all others carry JSON.
const DATA: u8 = 0x64;
const JSON: u8 = 0x6a;
/// Precedes every frame, so that a stranger's bytes are not taken for one.
const MAGIC: [u8; 3] = *b"sbn";

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// The first message of a rank to rank 0.
    Hello(Hello),
    /// Rank 0's answer when all ranks have joined.
    Welcome,
    /// Rank 0's answer when they do not fit together; says why.
    Refused(String),
    /// A part of a gather or broadcast.
    Data(Vec<u8>),
    /// The sender lives; it has finished this step.
    Alive {
        /// Last finished step, 0 before the first.
        step: u64,
    },
    /// Rank 0 has finished this step, and whether the run stops early.
    Verdict {
        /// The step.
        step: u64,
        /// The run's last step, if a signal asked for the end.
        stop_after: Option<u64>,
    },
    /// A signal asked some rank for the end.
    Interrupted,
    /// The sender ends in order.
    Ended {
        /// Its exit code.
        code: i32,
        /// Its error's message; empty without one.
        message: String,
    },
    /// Rank 0 found a dead rank.
    Died(Death),
}

/// Who joins a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u32,
    /// The sender's rank.
    pub rank: usize,
    /// The number of ranks that it knows of.
    pub ranks: usize,
    /// [`syncbn_abi::ABI_SYMBOL`].
    pub abi: String,
    /// The model's name.
    pub model: String,
    /// [`syncbn_abi::Model::schedule_hash`].
    pub schedule: u64,
}

/// A rank that ended without finishing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// The rank.
    pub rank: usize,
    /// The last step that it finished, as far as is known.
    pub step: u64,
    /// How it was noticed.
    pub cause: String,
}

/// Writes a frame.
pub fn write(out: &mut impl Write, frame: &Frame) -> io::Result<()> {
    let json;
    let (kind, content) = match frame {
        Frame::Data(bytes) => (DATA, bytes.as_slice()),
        other => {
            json = serde_json::to_vec(other)?;
            (JSON, json.as_slice())
        }
    };
    let mut head = [0; 12];
    head[..3].copy_from_slice(&MAGIC);
    head[3] = kind;
    head[4..].copy_from_slice(&(content.len() as u64).to_le_bytes());
    // One segment for a small frame, so that it leaves at once.
    if content.len() <= 1024 {
        return out.write_all(&[&head, content].concat());
    }
    out.write_all(&head)?;
    out.write_all(content)
}

/// Reads a frame of at most `limit` bytes; calls `alive` after every piece. A peer that closed the connection
/// is an error.
pub fn read(input: &mut impl Read, limit: u64, mut alive: impl FnMut()) -> io::Result<Frame> {
    let mut head = [0; 12];
    input.read_exact(&mut head)?;
    let malformed = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text);
    if head[..3] != MAGIC {
        return Err(malformed("this is not a rank's connection"));
    }
    let mut length = [0; 8];
    length.copy_from_slice(&head[4..]);
    let length = u64::from_le_bytes(length);
    if length > limit {
        return Err(malformed("the message is too long"));
    }
    let mut content = Vec::new();
    while (content.len() as u64) < length {
        let start = content.len();
        let more = PIECE.min(length as usize - start);
        content.resize(start + more, 0);
        input.read_exact(&mut content[start..])?;
        alive();
    }
    match head[3] {
        DATA => Ok(Frame::Data(content)),
        JSON => serde_json::from_slice(&content).map_err(io::Error::from),
        _ => Err(malformed("unknown kind of message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let death = Death {
            rank: 3,
            step: 7,
            cause: "gone".into(),
        };
        let frames = [
            Frame::Welcome,
            Frame::Data(vec![]),
            Frame::Data((0..3 << 20).map(|i| i as u8).collect()),
            Frame::Alive { step: 9 },
            Frame::Verdict {
                step: 1,
                stop_after: Some(2),
            },
            Frame::Died(death),
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            write(&mut bytes, frame).unwrap();
        }
        let mut rest = bytes.as_slice();
        let mut pieces = 0;
        for frame in &frames {
            assert_eq!(read(&mut rest, 1 << 30, || pieces += 1).unwrap(), *frame);
        }
        assert!(rest.is_empty());
        assert_eq!(pieces, 3 + 4);
        assert!(read(&mut rest, 1 << 30, || ()).is_err());
    }

    #[test]
    fn strangers_and_floods_are_refused() {
        let text = |bytes: &[u8], limit| read(&mut &*bytes, limit, || ()).unwrap_err().to_string();
        assert!(text(b"GET / HTTP/1.1\r\n\r\n", 1 << 30).contains("not a rank"));
        let mut bytes = Vec::new();
        write(&mut bytes, &Frame::Data(vec![0; 100])).unwrap();
        assert!(text(&bytes, 99).contains("too long"));
        bytes[3] = b'x';
        assert!(text(&bytes, 100).contains("unknown kind"));
    }
}
