//! A relay between the NATS client and a server of a tenant. It bounds what the server sends, which
//! the client would buffer without a limit.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The most bytes that a server may send in one connection. Its INFO, the handshake of TLS and a
/// few short messages are expected.
const MOST_FROM_SERVER: u64 = 128 << 10;

/// Listens on the loopback interface and connects to one address of a server. It ends when it is
/// dropped.
pub struct Relay {
    /// Where the client connects.
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Starts a relay to a checked address.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // The client connects once to each address. Others of this machine gain nothing here.
            while let Ok((client, _)) = listener.accept().await {
                // An error ends the connection, which is what the client learns.
                let _ = relay(client, server).await;
            }
        });
        Ok(Self {
            address,
            _tasks: tasks,
        })
    }
}

async fn relay(mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut from_server, mut to_server) = server.split();
    let (mut from_client, mut to_client) = client.split();
    let sent = async {
        let result = copy(&mut from_client, &mut to_server).await;
        let _ = to_server.shutdown().await;
        result
    };
    let mut from_server = (&mut from_server).take(MOST_FROM_SERVER);
    let received = copy(&mut from_server, &mut to_client);
    // The connection ends with the answers of the server, or with too many of them.
    tokio::select! {
        result = received => result.map(|_| ()),
        Err(error) = sent => Err(error),
    }
}
