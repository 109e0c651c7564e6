//! A message as no client library writes it: the name of a header is bytes, and need not be text.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Puts one message on partition 0 of `topic` (full name) by a produce request of version 3, and waits until the broker,
/// which must be the partition's leader, has it.
pub async fn produce(broker: &str, topic: &str, key: &[u8], value: &[u8], headers: &[(&[u8], &[u8])]) {
    let batch = batch(key, value, headers);
    let mut request = Vec::new();
    request.extend([0, 0, 0, 3]); // produce, version 3
    request.extend(7_i32.to_be_bytes()); // its number
    request.extend((-1_i16).to_be_bytes()); // no client id
    request.extend((-1_i16).to_be_bytes()); // no transaction
    request.extend((-1_i16).to_be_bytes()); // every acknowledgement
    request.extend(10_000_i32.to_be_bytes()); // within so many milliseconds
    request.extend(1_i32.to_be_bytes());
    request.extend(length16(topic));
    request.extend(topic.as_bytes());
    request.extend(1_i32.to_be_bytes());
    request.extend(0_i32.to_be_bytes()); // partition
    request.extend(length32(&batch));
    request.extend(&batch);

    let mut broker = TcpStream::connect(broker).await.expect("the broker listens");
    broker.write_all(&length32(&request)).await.expect("it reads");
    broker.write_all(&request).await.expect("it reads");
    let size = broker.read_i32().await.expect("it answers");
    let mut answer = vec![0; usize::try_from(size).expect("a size")];
    broker.read_exact(&mut answer).await.expect("it answers");
    // Number, one topic with its name, one partition with its number; then the error.
    let error = &answer[4 + 4 + 2 + topic.len() + 4 + 4..][..2];
    assert_eq!(error, [0, 0], "the broker took it");
}

fn batch(key: &[u8], value: &[u8], headers: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut record = vec![0]; // attributes
    record.extend(varint(0)); // time and offset after the first of the batch
    record.extend(varint(0));
    for bytes in [key, value] {
        record.extend(varint(bytes.len()));
        record.extend(bytes);
    }
    record.extend(varint(headers.len()));
    for bytes in headers.iter().flat_map(|(name, value)| [name, value]) {
        record.extend(varint(bytes.len()));
        record.extend(*bytes);
    }
    let mut checked = Vec::new();
    checked.extend(0_i16.to_be_bytes()); // attributes
    checked.extend(0_i32.to_be_bytes()); // the last offset after the first
    checked.extend(1_700_000_000_000_i64.to_be_bytes()); // first and last timestamp
    checked.extend(1_700_000_000_000_i64.to_be_bytes());
    checked.extend((-1_i64).to_be_bytes()); // no producer id, epoch and sequence
    checked.extend((-1_i16).to_be_bytes());
    checked.extend((-1_i32).to_be_bytes());
    checked.extend(1_i32.to_be_bytes()); // records
    checked.extend(varint(record.len()));
    checked.extend(record);

    let mut batch = Vec::new();
    batch.extend(0_i64.to_be_bytes()); // offset: the broker's business
    batch.extend((i32::try_from(checked.len()).expect("short") + 9).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes()); // leader's epoch
    batch.push(2); // format
    batch.extend(crc32c(&checked).to_be_bytes());
    batch.extend(checked);
    batch
}

fn length16(text: &str) -> [u8; 2] {
    i16::try_from(text.len()).expect("short").to_be_bytes()
}

fn length32(bytes: &[u8]) -> [u8; 4] {
    i32::try_from(bytes.len()).expect("short").to_be_bytes()
}

/// Zigzag, as all numbers in a record are; those here are not negative.
fn varint(number: usize) -> Vec<u8> {
    let (mut rest, mut bytes) = (number * 2, Vec::new());
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).expect("seven bits"));
    bytes
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}
