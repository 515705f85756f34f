//! As much of HTTP/1.1 as poster and receiver need: messages with a Content-Length, one after
//! another on a connection.

use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// More than any header list that Flux or Tidings sends.
const MOST_HEADERS: usize = 64;
/// Room for one message in a usual case; the buffer grows when one is larger.
const BUFFER_BYTES: usize = 8 << 10;

/// A connection, and what has been read from it and not taken yet.
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

/// A request or an answer.
pub struct Message {
    /// The status of an answer; 0 for a request.
    pub status: u16,
    /// The body.
    pub body: BytesMut,
}

struct Head {
    size: usize,
    status: u16,
    body_size: usize,
}

impl Connection {
    /// Over a TCP connection.
    pub fn new(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
        })
    }

    /// Sends a message that is written out already.
    pub async fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        self.stream
            .write_all(message)
            .await
            .context("cannot write to the connection")
    }

    /// The next request; none when the connection has ended.
    pub async fn request(&mut self) -> anyhow::Result<Option<Message>> {
        self.message(request_head).await
    }

    /// The next answer.
    pub async fn answer(&mut self) -> anyhow::Result<Message> {
        self.message(answer_head)
            .await?
            .context("the program closed the connection instead of answering")
    }

    async fn message(
        &mut self,
        parse: fn(&[u8]) -> anyhow::Result<Option<Head>>,
    ) -> anyhow::Result<Option<Message>> {
        loop {
            if let Some(head) = parse(&self.buffer)?
                && self.buffer.len() >= head.size + head.body_size
            {
                let mut body = self.buffer.split_to(head.size + head.body_size);
                let body = body.split_off(head.size);
                return Ok(Some(Message {
                    status: head.status,
                    body,
                }));
            }
            self.buffer.reserve(BUFFER_BYTES / 2);
            if self
                .stream
                .read_buf(&mut self.buffer)
                .await
                .context("cannot read from the connection")?
                == 0
            {
                ensure!(
                    self.buffer.is_empty(),
                    "the connection ended within a message"
                );
                return Ok(None);
            }
        }
    }
}

fn request_head(bytes: &[u8]) -> anyhow::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(size) =
        request.parse(bytes).context("this is no HTTP request")?
    else {
        return Ok(None);
    };
    Ok(Some(Head {
        size,
        status: 0,
        body_size: body_size(request.headers)?,
    }))
}

fn answer_head(bytes: &[u8]) -> anyhow::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(size) = answer.parse(bytes).context("this is no HTTP answer")?
    else {
        return Ok(None);
    };
    Ok(Some(Head {
        size,
        status: answer.code.unwrap_or(0),
        body_size: body_size(answer.headers)?,
    }))
}

fn body_size(headers: &[httparse::Header]) -> anyhow::Result<usize> {
    let mut size = 0;
    for header in headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("a message has a Transfer-Encoding; only a Content-Length is understood here");
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            size = std::str::from_utf8(header.value)?
                .trim()
                .parse()
                .context("a Content-Length is no number")?;
        }
    }
    Ok(size)
}
