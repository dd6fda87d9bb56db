//! A minimal HTTP/1.1 client over a keep-alive connection: one request at a time, answers with `Content-Length` only.
//!
//! The load generator shares its cores with the server under test, so each microsecond it spends is taken from the server.
//! A request is one write of bytes prepared beforehand, an answer is one read into a reused buffer and a scan of its head.
//! What a Scrip server never sends (chunked bodies, interim answers, more bytes than announced) is an error here.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::Target;

pub const JSON: &str = "application/json";
pub const NDJSON: &str = "application/x-ndjson";

const FIRST_BUFFER_BYTES: usize = 16 * 1024;
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Set-up calls only; the load loops have limits of their own.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The bytes of one request. A body comes with its content type.
pub fn request_bytes(
    target: &Target,
    method: &str,
    path: &str,
    idempotency_key: Option<&str>,
    body: Option<(&str, &str)>,
) -> Vec<u8> {
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n",
        target.addr, target.operator_key
    );
    if let Some(key) = idempotency_key {
        text.push_str(&format!("Idempotency-Key: {key}\r\n"));
    }
    match body {
        Some((content_type, body)) => {
            text.push_str(&format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
        None => text.push_str("\r\n"),
    }
    text.into_bytes()
}

/// Opens a connection with `TCP_NODELAY`, without which a small request may wait for the acknowledgement of the last.
pub async fn connect(addr: SocketAddr) -> Result<(ResponseReader, OwnedWriteHalf)> {
    let stream = TcpStream::connect(addr).await.with_context(|| format!("connecting to {addr}"))?;
    stream.set_nodelay(true).context("setting TCP_NODELAY")?;
    let (reading, writing) = stream.into_split();
    Ok((ResponseReader { reading, buffer: vec![0; FIRST_BUFFER_BYTES] }, writing))
}

/// One answer, borrowed from its connection's buffer.
#[derive(Debug)]
pub struct Response<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

/// The reading half of a connection.
#[derive(Debug)]
pub struct ResponseReader {
    reading: OwnedReadHalf,
    buffer: Vec<u8>,
}

impl ResponseReader {
    /// The answer to the one request that is under way.
    pub async fn next(&mut self) -> Result<Response<'_>> {
        let mut filled = self.read_more(0).await?;
        let head = loop {
            match parse_head(&self.buffer[..filled])? {
                Some(head) => break head,
                None => {
                    ensure!(filled < MAX_HEAD_BYTES, "the head of the answer is longer than {MAX_HEAD_BYTES} bytes");
                    filled = self.read_more(filled).await?;
                }
            }
        };
        let end = head.bytes + head.content_length;
        if end > self.buffer.len() {
            // One spare byte keeps every read shorter than its buffer, which tells the runtime that the socket is drained.
            self.buffer.resize(end + 1, 0);
        }
        while filled < end {
            filled = self.read_more(filled).await?;
        }
        ensure!(filled == end, "{} bytes follow the answer, which nobody asked for", filled - end);
        Ok(Response { status: head.status, body: &self.buffer[head.bytes..end] })
    }

    async fn read_more(&mut self, filled: usize) -> Result<usize> {
        if filled == self.buffer.len() {
            self.buffer.resize(filled * 2, 0);
        }
        let read = self.reading.read(&mut self.buffer[filled..]).await.context("reading the answer")?;
        ensure!(read > 0, "the server closed the connection");
        Ok(filled + read)
    }
}

struct Head {
    status: u16,
    /// Length including the empty line.
    bytes: usize,
    content_length: usize,
}

/// Reads the status and the length of the body; `None` when the head is not complete yet.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>> {
    const LENGTH: &[u8] = b"content-length:";
    const ENCODING: &[u8] = b"transfer-encoding:";
    let mut status = None;
    let mut content_length = None;
    let mut start = 0;
    while let Some(length) = bytes[start..].iter().position(|byte| *byte == b'\n') {
        let line = bytes[start..start + length].strip_suffix(b"\r").context("a line of the head without CR")?;
        start += length + 1;
        let Some(status) = status else {
            status = Some(parse_status(line)?);
            continue;
        };
        if line.is_empty() {
            let content_length = match content_length {
                Some(length) => length,
                None if status == 204 || status == 304 => 0,
                None => bail!("an answer with status {status} without Content-Length"),
            };
            ensure!(content_length <= MAX_BODY_BYTES, "an answer of {content_length} bytes");
            return Ok(Some(Head { status, bytes: start, content_length }));
        }
        if line.len() > LENGTH.len() && line[..LENGTH.len()].eq_ignore_ascii_case(LENGTH) {
            let text = std::str::from_utf8(&line[LENGTH.len()..]).context("Content-Length")?;
            content_length = Some(text.trim().parse().with_context(|| format!("Content-Length {text:?}"))?);
        } else if line.len() > ENCODING.len() && line[..ENCODING.len()].eq_ignore_ascii_case(ENCODING) {
            bail!("an answer with Transfer-Encoding");
        }
    }
    Ok(None)
}

fn parse_status(line: &[u8]) -> Result<u16> {
    line.strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok())
        .filter(|status| (200..600).contains(status))
        .ok_or_else(|| anyhow!("no final HTTP/1.1 answer: {}", excerpt(line)))
}

/// The beginning of a body, for messages.
pub fn excerpt(body: &[u8]) -> String {
    const MOST_BYTES: usize = 400;
    String::from_utf8_lossy(&body[..body.len().min(MOST_BYTES)]).into_owned()
}

/// A connection for set-up and checks, where convenience counts for more than microseconds.
#[derive(Debug)]
pub struct Api {
    target: Target,
    reading: ResponseReader,
    writing: OwnedWriteHalf,
}

/// An owned answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    request: String,
}

impl Answer {
    /// The body as JSON, provided the status is the expected one.
    pub fn json(&self, expected_status: u16) -> Result<Value> {
        ensure!(
            self.status == expected_status,
            "{} was answered with {} instead of {expected_status}: {}",
            self.request,
            self.status,
            excerpt(&self.body)
        );
        serde_json::from_slice(&self.body).with_context(|| format!("the answer to {} is no JSON", self.request))
    }
}

impl Api {
    pub async fn connect(target: &Target) -> Result<Api> {
        let (reading, writing) = connect(target.addr).await?;
        Ok(Api { target: target.clone(), reading, writing })
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        self.call("GET", path, None).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Answer> {
        self.call("POST", path, Some((JSON, &body.to_string()))).await
    }

    pub async fn post_lines(&mut self, path: &str, lines: &str) -> Result<Answer> {
        self.call("POST", path, Some((NDJSON, lines))).await
    }

    async fn call(&mut self, method: &str, path: &str, body: Option<(&str, &str)>) -> Result<Answer> {
        let request = format!("{method} {path}");
        let bytes = request_bytes(&self.target, method, path, None, body);
        let exchange = async {
            self.writing.write_all(&bytes).await.context("sending the request")?;
            let response = self.reading.next().await?;
            Ok::<_, anyhow::Error>((response.status, response.body.to_vec()))
        };
        let (status, body) = tokio::time::timeout(CALL_TIMEOUT, exchange)
            .await
            .with_context(|| format!("{request}: no answer within {CALL_TIMEOUT:?}"))?
            .with_context(|| request.clone())?;
        Ok(Answer { status, body, request })
    }
}

/// A request with places for numbers, so that making the next one is a copy and a few digits.
///
/// Each run of [`SLOT`] is a place for one number, ten decimal digits wide; the fixed width keeps `Content-Length` true.
#[derive(Debug, Clone)]
pub struct Pattern {
    bytes: Vec<u8>,
    slots: Vec<usize>,
}

/// Marks a place for a number in a [`Pattern`].
pub const SLOT: &str = "##########";

impl Pattern {
    pub fn new(bytes: Vec<u8>) -> Pattern {
        let mut slots = Vec::new();
        let mut at = 0;
        while at + SLOT.len() <= bytes.len() {
            if &bytes[at..at + SLOT.len()] == SLOT.as_bytes() {
                slots.push(at);
                at += SLOT.len();
            } else {
                at += 1;
            }
        }
        Pattern { bytes, slots }
    }

    /// Appends the request with `number(i)` in the i-th place; of numbers beyond ten digits the last ten are written.
    pub fn write(&self, out: &mut Vec<u8>, mut number: impl FnMut(usize) -> u64) {
        let base = out.len();
        out.extend_from_slice(&self.bytes);
        for (index, slot) in self.slots.iter().enumerate() {
            let mut rest = number(index);
            for digit in out[base + slot..base + slot + SLOT.len()].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn head(text: &str) -> Result<Option<(u16, usize, usize)>> {
        Ok(parse_head(text.as_bytes())?.map(|head| (head.status, head.bytes, head.content_length)))
    }

    #[test]
    fn heads() {
        let text = "HTTP/1.1 201 Created\r\nContent-Length:  12\r\nx: y\r\n\r\n";
        assert_eq!(head(text).unwrap(), Some((201, text.len(), 12)));
        for cut in 0..text.len() {
            assert_eq!(head(&text[..cut]).unwrap(), None, "cut at {cut}");
        }
        assert_eq!(head("HTTP/1.1 304 Not Modified\r\n\r\n").unwrap(), Some((304, 29, 0)));
        for wrong in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n",
        ] {
            assert!(head(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn patterns_fill_their_slots() {
        let pattern = Pattern::new(format!("key {SLOT}, member {SLOT}###").into_bytes());
        let mut out = b"before ".to_vec();
        pattern.write(&mut out, |index| if index == 0 { 42 } else { 12_345_678_901 });
        assert_eq!(String::from_utf8(out).unwrap(), "before key 0000000042, member 2345678901###");
    }

    /// Answers one connection with the given pieces, each its own segment, after the first bytes of a request.
    async fn answered_by(pieces: Vec<Vec<u8>>) -> Result<(u16, usize)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 64];
            let _ = stream.read(&mut request).await.unwrap();
            for piece in pieces {
                stream.write_all(&piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let client = async {
            let (mut reading, mut writing) = connect(addr).await?;
            writing.write_all(b"x").await?;
            let response = reading.next().await?;
            Ok((response.status, response.body.len()))
        };
        tokio::join!(server, client).1
    }

    #[tokio::test]
    async fn answers_in_pieces_large_and_broken() {
        let large = vec![b'a'; 100_000];
        let whole =
            [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", large.len()).into_bytes(), large].concat();
        let pieces = whole.chunks(30_000).map(<[u8]>::to_vec).collect();
        assert_eq!(answered_by(pieces).await.unwrap(), (200, 100_000));
        let split = vec![b"HTTP/1.1 422 X\r\ncontent-".to_vec(), b"length: 2\r\n\r\n{".to_vec(), b"}".to_vec()];
        assert_eq!(answered_by(split).await.unwrap(), (422, 2));
        assert!(answered_by(vec![b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort".to_vec()]).await.is_err());
        assert!(answered_by(vec![b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nlonger".to_vec()]).await.is_err());
    }
}
