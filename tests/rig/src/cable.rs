//! A TCP path to a server that a test cuts and restores.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the path does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It carries data.
    Whole,
    /// It carries nothing, and closes nothing. What is under way arrives when it is whole again.
    Silent,
    /// Connections are closed, and new ones too.
    Cut,
}

/// Listens on a free loopback port and carries each connection to a server.
pub struct Cable {
    address: String,
    state: watch::Sender<State>,
}

impl Cable {
    /// Carries connections to the server at `nats://HOST:PORT`.
    pub async fn to(url: &str) -> Self {
        Self::slow(url, Duration::ZERO).await
    }

    /// Like [`Cable::to`], with a delay in each direction.
    pub async fn slow(url: &str, delay: Duration) -> Self {
        let server = url.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a loopback port is free");
        let address = listener
            .local_addr()
            .expect("the port is bound")
            .to_string();
        let (state, states) = watch::channel(State::Whole);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), states.clone(), delay));
            }
        });
        Self { address, state }
    }

    /// The URL of this end.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Closes all connections, and refuses new ones.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Carries nothing more, without closing a connection.
    pub fn silence(&self) {
        self.state.send_replace(State::Silent);
    }

    /// Carries data again.
    pub fn restore(&self) {
        self.state.send_replace(State::Whole);
    }
}

async fn carry(client: TcpStream, server: String, states: watch::Receiver<State>, delay: Duration) {
    if *states.borrow() == State::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = states.clone();
    tokio::select! {
        () = copy(from_client, to_server, states.clone(), delay) => {}
        () = copy(from_server, to_client, states, delay) => {}
        _ = cut.wait_for(|state| *state == State::Cut) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut states: watch::Receiver<State>,
    delay: Duration,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let whole = |state: &State| *state == State::Whole;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let is_gone = states.wait_for(whole).await.is_err();
        if is_gone || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
