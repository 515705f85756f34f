//! The subset of HTTP/1.1 that poster and receiver need: messages with a Content-Length.

use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// More headers than Flux or Tidings send.
const MOST_HEADERS: usize = 64;
/// Enough for a typical message; the buffer grows when necessary.
const BUFFER_BYTES: usize = 8 << 10;

/// A connection with its read buffer.
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

/// A request or a response.
pub struct Message {
    /// The status of a response; 0 for a request.
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
    /// Wraps a TCP connection.
    pub fn new(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
        })
    }

    /// Sends an encoded message.
    pub async fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        self.stream
            .write_all(message)
            .await
            .context("cannot write to the connection")
    }

    /// Reads the next request; `None` at the end of the connection.
    pub async fn request(&mut self) -> anyhow::Result<Option<Message>> {
        self.message(request_head).await
    }

    /// Reads the next response.
    pub async fn response(&mut self) -> anyhow::Result<Message> {
        self.message(response_head)
            .await?
            .context("the program closed the connection without a response")
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
    let httparse::Status::Complete(size) = request.parse(bytes).context("not an HTTP request")?
    else {
        return Ok(None);
    };
    Ok(Some(Head {
        size,
        status: 0,
        body_size: body_size(request.headers)?,
    }))
}

fn response_head(bytes: &[u8]) -> anyhow::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(size) = response.parse(bytes).context("not an HTTP response")?
    else {
        return Ok(None);
    };
    Ok(Some(Head {
        size,
        status: response.code.unwrap_or(0),
        body_size: body_size(response.headers)?,
    }))
}

fn body_size(headers: &[httparse::Header]) -> anyhow::Result<usize> {
    let mut size = 0;
    for header in headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("a message has a Transfer-Encoding; only Content-Length is supported");
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            size = std::str::from_utf8(header.value)?
                .trim()
                .parse()
                .context("a Content-Length is not a number")?;
        }
    }
    Ok(size)
}
