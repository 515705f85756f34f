//! A network link to the nats-server that delays everything.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// Forwards connections, with a delay in each direction.
#[derive(Debug)]
pub struct SlowLink {
    url: String,
    task: tokio::task::JoinHandle<()>,
}

impl SlowLink {
    /// Starts to forward to the server of a `nats://` URL.
    pub async fn start(url: &str, delay: Duration) -> Self {
        let server = url.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("the listener has an address");
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else {
                        return;
                    };
                    let (client, server) = (client.into_split(), server.into_split());
                    tokio::join!(
                        forward(client.0, server.1, delay),
                        forward(server.0, client.1, delay)
                    );
                });
            }
        });
        Self {
            url: format!("nats://{address}"),
            task,
        }
    }

    /// The URL for clients.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    delay: Duration,
) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        sleep(delay).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
