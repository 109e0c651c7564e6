//! Asks a broker whether it serves, with the smallest request of its protocol.
//!
//! The port is open long before the broker answers, and a full client would log every refused try.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CORRELATION: i32 = 0x5359_4d50;
/// `Metadata`, version 0, of no topic in particular: answered only by a broker that is in the cluster.
const METADATA: i16 = 3;
const VERSION: i16 = 1;
/// An answer is about a hundred bytes; more is no broker.
const LARGEST_ANSWER: i32 = 1 << 20;

/// Succeeds when the broker on this loopback port answers and names at least one broker.
pub(super) async fn answers(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(&request()).await?;
    let length = stream.read_i32().await?;
    if !(8..LARGEST_ANSWER).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer of a broker"));
    }
    let correlation = stream.read_i32().await?;
    let brokers = stream.read_i32().await?;
    if correlation == CORRELATION && brokers > 0 { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
}

fn request() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(METADATA.to_be_bytes());
    body.extend(VERSION.to_be_bytes());
    body.extend(CORRELATION.to_be_bytes());
    body.extend((-1_i16).to_be_bytes()); // no client id
    body.extend(0_i32.to_be_bytes()); // no topics
    let length = i32::try_from(body.len()).unwrap_or(i32::MAX);
    [length.to_be_bytes().as_slice(), &body].concat()
}
